"""PostgreSQL's TRUNCATE fires no trigger of rows: append-only tables refuse it too."""

from alembic import op

revision = "0013"
down_revision = "0012"

GUARDS = {"answer": "answer_append_only", "audit": "append_only", "settlement": "append_only"}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return  # it has no TRUNCATE; its DELETE of all rows fires the trigger of each
    for table, function in GUARDS.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
