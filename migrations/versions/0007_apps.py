"""Apps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "apps",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("app", _string(30), nullable=False, comment="its name"),
        sa.Column("version", sa.BigInteger, nullable=False, comment="grows with every write"),
        sa.Column("app_meta", sa.LargeBinary, nullable=False, comment="flyteidl2.app.Meta"),
        sa.Column("app_spec", sa.LargeBinary, nullable=False, comment="flyteidl2.app.Spec"),
        sa.Column("app_status", sa.LargeBinary, nullable=False, comment="flyteidl2.app.Status"),
        sa.Column("status_phase", sa.Integer, nullable=False, comment="the latest deployment status"),
        sa.Column("deployment", _string(64), nullable=False, comment="SHA-256 of what its replicas are made of, hex"),
        sa.Column("host", _string(63), comment="its short host name; NULL: somebody else's"),
        sa.Column("cluster", _string(63), nullable=False, server_default="", comment="where it is pinned to"),
        sa.Column("artifacts", text, nullable=False, server_default="", comment="what it consumes, a line each"),
        sa.Column("created_by", text, nullable=False, server_default=""),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "app", name="pk_apps"),
    )
    op.create_index("ix_apps_host", "apps", ["host"], unique=True)


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
