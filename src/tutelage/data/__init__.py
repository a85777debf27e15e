"""Data in and out: formats, checks, the one tokenization path, mixtures and batch plans."""
