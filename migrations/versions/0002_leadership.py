"""Several replicas: who leads, what they tell each other beside actions, and which programs may use the schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    compatibility = op.create_table(
        "compatibility",
        sa.Column("minimum", _string(32), nullable=False, comment="the oldest revision whose programs may use this schema"),
        sa.PrimaryKeyConstraint("minimum", name="pk_compatibility"),
    )
    op.bulk_insert(compatibility, [{"minimum": "0001"}])
    op.create_table(
        "leadership",
        sa.Column("name", _string(63), nullable=False, comment="of what there is one leader for"),
        sa.Column("epoch", sa.BigInteger, nullable=False, comment="of the lease, greater with every leader"),
        sa.Column("holder", _TEXT, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leadership"),
    )
    if op.get_bind().dialect.name == "postgresql":
        about = "of a notice, which is about no action"
        op.add_column("changes", sa.Column("topic", _string(30), nullable=False, server_default="", comment=about))
        op.add_column("changes", sa.Column("key", _TEXT, nullable=False, server_default="", comment="what the notice is about"))


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
