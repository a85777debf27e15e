"""Jobs in a queue that all servers of a store share, and quality figures that they share too.

A round's process gave signs of life in the round; now it is a job, which has a lease.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("alone", sa.String(length=100), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=120), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("began", sa.Double(), nullable=True),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("alone"),
    )
    op.create_index("job_ready", "job", ["state", "until"])
    op.create_index("job_project", "job", ["project_id", "id"])
    op.create_table(
        "figures",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("took", sa.Double(), nullable=False),
        sa.Column("made", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.PrimaryKeyConstraint("project_id"),
    )
    _enqueue_rounds()
    op.drop_column("round", "beat")


def _enqueue_rounds() -> None:
    """What a process did until now, and a server took up at its start where that was gone, is a job from now on."""
    db, found = op.get_bind(), sa.table("round", *map(sa.column, ("project_id", "number", "state", "folder", "beat")))
    result = sa.column("result", sa.JSON())
    plain = ("project_id", "kind", "folder", "at", "alone", "state", "attempts", "worker", "until", "said", "created")
    jsons = (sa.column("settings", sa.JSON()), sa.column("result", sa.JSON()))
    job = sa.table("job", *map(sa.column, plain), *jsons)
    wanted = sa.select(found.c.project_id, found.c.number, found.c.folder, found.c.beat, result).select_from(found)
    for row in db.execute(wanted.where(found.c.state.in_(("sampling", "training")))).all():
        if "at" in row.result:
            values = {"project_id": row.project_id, "kind": "round", "settings": {"number": row.number}}
            values |= {"folder": row.folder, "at": row.result["at"], "alone": f"round {row.project_id}"}
            values |= {"state": "waiting", "attempts": 0, "worker": "", "said": "", "result": {}}
            db.execute(sa.insert(job).values(**values, until=row.beat, created=row.beat))
