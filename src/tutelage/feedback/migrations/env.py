"""Runs the migrations on the connection that `Store.open` hands over."""

from alembic import context

from tutelage.feedback.schema import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
