"""Who says which of two answers is better: reward models and language models behind one interface."""
