"""Secrets, sealed, and the settings of the whole, of domains and of projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("name", _string(255), nullable=False),
        sa.Column("kind", sa.Integer, nullable=False, comment="flyteidl2.secret.SecretType"),
        sa.Column("value", sa.LargeBinary, nullable=False, comment="sealed: see secrets.cipher"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "name", name="pk_secrets"),
    )
    about = "flyteidl2.settings.Settings, as set here and nowhere above"
    op.create_table(
        "scope_settings",
        sa.Column("project", _string(63), nullable=False),
        sa.Column("domain", _string(63), nullable=False),
        sa.Column("settings", sa.LargeBinary, nullable=False, comment=about),
        sa.Column("version", sa.BigInteger, nullable=False, comment="grows with every write"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", name="pk_scope_settings"),
    )


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
