"""Experiments as files: a study varies one thing over seeds; a lab scenario breaks one thing, explains and mends it."""
