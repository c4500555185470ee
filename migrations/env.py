"""Moves a database from one schema to the next: forward only, one transaction a step.

The server hands over its connection (``flyte_unified.db.schema``); a developer names the database:
``alembic -x url=sqlite:////path/to/flyte.db upgrade head``.
"""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from flyte_unified.db.tables import metadata, replicated


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        # A table is rebuilt to change it, which must not look like the loss of what refers to it.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
        event.listen(connection, "begin", begin)
    context.configure(
        connection=connection,
        target_metadata=metadata if connection.dialect.name == "sqlite" else [metadata, replicated],
        transactional_ddl=True,
        transaction_per_migration=True,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def begin(connection: Connection) -> None:
    """Python's driver opens no transaction for DDL."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def named() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise CommandError("name the database: alembic -x url=sqlite:////path/to/flyte.db ...")
    return url


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with create_engine(named(), poolclass=NullPool).connect() as opened:
        migrate(opened)
