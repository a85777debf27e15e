"""Where people's answers are kept: the store, people and roles, the task queue, and the quality of labels. No torch."""

from tutelage.feedback.store import Store

__all__ = ["Store"]
