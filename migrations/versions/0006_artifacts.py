"""Artifacts, and the triggers that they start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _artifacts()
    _triggers()


def _artifacts() -> None:
    op.create_table(
        "artifact_names",
        *_scope(),
        sa.Column("name", _string(255), nullable=False),
        sa.Column("partition_schema", sa.LargeBinary, nullable=False, comment="flyteidl2.artifact.ArtifactPartitionSchema"),
        sa.Column("declared", sa.Integer, nullable=False, comment="whether by itself, and not by a first version alone"),
        sa.Column("versions", sa.BigInteger, nullable=False),
        sa.Column("latest", _string(255), comment="NULL while there is no version"),
        sa.Column("latest_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("project", "domain", "name", name="pk_artifact_names"),
    )
    newest = ["project", "domain", "latest_at", "name"]
    op.create_index("ix_artifact_names_newest", "artifact_names", newest, **_only("latest_at IS NOT NULL"))
    about = "flyteidl2.artifact.PartitionSchemaMismatch, of a task's that does not fit"
    op.create_table(
        "artifacts",
        *_scope(),
        sa.Column("name", _string(255), nullable=False),
        sa.Column("version", _string(255), nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False, comment="flyteidl2.artifact.ArtifactSpec"),
        sa.Column("mismatch", sa.LargeBinary, comment=about),
        sa.Column("partition", _string(64), nullable=False, comment="digest of all partition values"),
        sa.Column("partitions", sa.JSON, nullable=False, comment="those that are text"),
        sa.Column("time_partition", sa.BigInteger),
        sa.Column("user_metadata", sa.JSON, nullable=False),
        sa.Column("source_run", _text(), nullable=False),
        sa.Column("source_action", _text(), nullable=False),
        sa.Column("source_external_ref", _text(), nullable=False),
        sa.Column("created_by", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False, comment="of a name's versions, no two at one time"),
        sa.PrimaryKeyConstraint("project", "domain", "name", "version", name="pk_artifacts"),
    )
    for name, columns in {
        "newest": ["created_at", "name", "version"],
        "versions": ["name", "created_at", "version"],
        "partitions": ["name", "partition", "created_at"],
        "times": ["name", "time_partition", "created_at", "version"],
        "runs": ["source_run", "created_at", "name", "version"],
    }.items():
        op.create_index(f"ix_artifacts_{name}", "artifacts", ["project", "domain", *columns])


def _triggers() -> None:
    op.create_index(
        "ix_triggers_on_artifacts", "triggers", ["project", "domain"], **_only("automation_type = 3 AND active = 1")
    )
    op.create_table(
        "trigger_offers",
        *_scope(),
        sa.Column("task", _string(255), nullable=False),
        sa.Column("name", _string(255), nullable=False, comment="of the trigger"),
        sa.Column("at", sa.BigInteger, nullable=False, comment="when the artifact's version was created"),
        sa.Column("artifact", _string(255), nullable=False),
        sa.Column("version", _string(255), nullable=False),
        sa.PrimaryKeyConstraint("project", "domain", "task", "name", "at", "artifact", "version", name="pk_trigger_offers"),
    )


def _scope() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("project", _string(63), nullable=False), sa.Column("domain", _string(63), nullable=False)


def _string(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _only(where: str) -> dict[str, sa.TextClause]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
