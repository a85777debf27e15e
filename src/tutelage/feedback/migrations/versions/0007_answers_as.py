"""Whether a project shows answers as text or as markdown."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("project", sa.Column("answers_as", sa.String(length=16), nullable=False, server_default="text"))
