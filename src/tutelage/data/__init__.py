"""Data in and out, and the one path from conversations to tokens."""
