"""Checkpoints behind OpenAI's HTTP API: requests from many clients share one running batch."""
