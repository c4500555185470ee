"""Brings a database to the schema of this version.

An empty one is created from the tables and stamped: replaying history would cost a second at every first start. Alembic is
imported only when there is another schema than ours; a test proves that both ways end the same.

While a cluster is upgraded, old and new programs use one schema, so a migration only adds: tables, and columns that an old
program need not fill. One that must do more notes in ``compatibility`` that older programs are out (``minimum``), and is
released after the programs that can do without what it takes away.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db.tables import compatibility, metadata, replicated

HEAD = "0010"
"""The revision that ``tables`` describe; the newest file in ``migrations/versions``."""
MINIMUM = "0009"
"""The oldest revision whose programs can use this schema, as the migrations note it."""

_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic makes it."""


def prepare(connection: Connection) -> None:
    """Creates, upgrades or accepts the schema, while the caller keeps other starts out.

    Raises FailedPrecondition for one that a newer program made and this one cannot use.
    """
    found = _revision(connection)
    if found is None:
        create(connection)
    connection.commit()
    if found is not None and found != HEAD:
        upgrade(connection, found=found)


def create(connection: Connection) -> None:
    """Makes every table and notes the revision."""
    if connection.dialect.name == "postgresql":
        _say_to_postgres()
        replicated.create_all(connection, checkfirst=False)
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection)
    connection.execute(insert(compatibility).values(minimum=MINIMUM))
    connection.execute(insert(_version).values(version_num=HEAD))


def upgrade(connection: Connection, *, found: str) -> None:
    """Moves an older schema to this version's, one transaction a step; leaves a newer one that we can use as it is.

    Raises FailedPrecondition for one that we cannot use, or that a step fails on.
    """
    from alembic import command  # a quarter of a second, needed once in a database's life
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        minimum = _minimum(connection) or found
        if minimum in known:
            return
        raise FailedPrecondition(
            f"the database has schema {found}, for programs of schema {minimum} or newer, and this one has {HEAD}: "
            "it was written by a newer flyte-unified; install that version again, or choose another --data-dir"
        )
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if error.connection_invalidated:  # the server is away, which another start may mend
            raise
        raise FailedPrecondition(
            f"the database could not be moved from schema {found} to {HEAD}; the step that failed is undone: {error.orig}"
        ) from error


def _say_to_postgres() -> None:
    """What ``tables`` mean for Postgres. Said there in SQLAlchemy's way, each laptop would load what is made for Postgres."""
    for table in metadata.tables.values():
        table.dialect_options["postgresql"]["with"] = table.info.get("postgresql_with")
        for index in table.indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.execute(select(_version.c.version_num)).scalar_one_or_none()


def _minimum(connection: Connection) -> str | None:
    minimum = connection.execute(select(compatibility.c.minimum)).scalar_one_or_none()
    connection.commit()
    return minimum


def _scripts() -> Path:
    """The migrations: inside the installed package, or beside it in a source tree."""
    shipped = Path(__file__).parent / "migrations"
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / "migrations"
