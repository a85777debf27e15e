"""Alembic's versions of the store's tables."""
