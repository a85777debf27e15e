"""What the pages compute: models that answer, comparisons, chats, runs and lab lessons. Torch is loaded late."""
