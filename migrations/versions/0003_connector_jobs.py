"""Jobs that connectors run: what must be known of one to ask for it again, or to have it deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "connector_jobs",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("run", _string(30), nullable=False),
        sa.Column("name", _string(30), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("connector", _TEXT, nullable=False, comment="the address of the service that runs it"),
        sa.Column("request", sa.LargeBinary, nullable=False, comment="flyteidl2.connector.GetTaskRequest"),
        sa.Column("outputs", sa.JSON, nullable=False, comment="names of what the task promises"),
        sa.PrimaryKeyConstraint("project", "domain", "run", "name", "attempt", name="pk_connector_jobs"),
    )


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
