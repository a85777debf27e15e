"""The checkpoint whose template and tokens the Write page shows."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("project", sa.Column("template", sa.Text(), nullable=False, server_default="world"))
    op.add_column("project", sa.Column("max_tokens", sa.Integer(), nullable=False, server_default="1024"))
