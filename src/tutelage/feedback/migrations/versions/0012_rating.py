"""Of which answers a project asks the quality besides their order."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("project", sa.Column("rating", sa.String(length=16), nullable=False, server_default="optional"))
