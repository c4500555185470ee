"""``flyte-unified db``: look after the database."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyte_unified.cli import options
from flyte_unified.cli.datadir import held
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.settings import Settings, scheme

if TYPE_CHECKING:
    from flyte_unified.db.api import Database


def add_to(verbs: Any) -> None:
    db: argparse.ArgumentParser = verbs.add_parser("db", help="look after the database")
    nouns = db.add_subparsers(metavar="WHAT", required=True)
    upgrade = nouns.add_parser(
        "upgrade",
        help="move the database to this version's schema",
        description="Move the database to this version's schema. A start does it too; this is for doing it beforehand.",
    )
    options.add(upgrade, only=options.DATA)
    upgrade.set_defaults(run=run_upgrade)

    backup = nouns.add_parser(
        "backup",
        help="write the server's data to one file, while it runs",
        description="Write the database, the objects, the logs and the key to one tar file, while the server runs. Objects in "
        "a bucket are not part of it.",
    )
    backup.add_argument("file", metavar="FILE", type=Path)
    backup.add_argument("--database-only", action="store_true", help="leave out objects and logs")
    options.add(backup, only=options.DATA)
    backup.set_defaults(run=run_backup)

    restore = nouns.add_parser(
        "restore",
        help="put a backup in the place of a server's data",
        description="Put a backup into a data directory on which no server runs, and move its database to this version's "
        "schema.",
    )
    restore.add_argument("file", metavar="FILE", type=Path)
    restore.add_argument("--replace", action="store_true", help="give up the database that is there")
    options.add(restore, only=options.DATA)
    restore.set_defaults(run=run_restore)


def run_upgrade(args: argparse.Namespace) -> int:
    settings = options.load(args)
    with held(settings.data.dir, port=None):
        asyncio.run(_upgrade(settings))
    return 0


async def _upgrade(settings: Settings) -> None:
    from flyte_unified.db.schema import HEAD

    await prepared(database_of(settings))
    sys.stdout.write(f"{'the database' if settings.database.url else settings.database_file} has schema {HEAD}\n")


def database_of(settings: Settings) -> Database:
    """The one that a server would use."""
    if settings.database.url:
        from flyte_unified.db.postgres import PostgresDatabase

        return PostgresDatabase(settings.database.url)
    from flyte_unified.db.sqlite import SQLiteDatabase

    return SQLiteDatabase(settings.database_file)


async def prepared(database: Database) -> None:
    """Moves it to this version's schema, or makes it."""
    try:
        await database.start()
    finally:
        await database.stop()


def run_backup(args: argparse.Namespace) -> int:
    from flyte_unified.cli.backup import backup

    settings, target = options.load(args), args.file.expanduser().absolute()
    try:
        backup(settings, target, objects=not args.database_only)
    except OSError as error:
        raise FailedPrecondition(f"{target} could not be written: {error.strerror or error}") from error
    sys.stdout.write(f"wrote {target}: keep it as private as the data directory, its key opens the secrets\n")
    if scheme(settings.storage.root):
        sys.stdout.write(f"inputs and outputs stay where they are, in {settings.storage.root}\n")
    return 0


def run_restore(args: argparse.Namespace) -> int:
    from flyte_unified.cli.backup import moved, restore

    settings = options.load(args)
    manifest = restore(settings, args.file.expanduser(), replace=args.replace)
    where = f" --data-dir {settings.data.dir}" if settings.sources.get("data.dir") == "flag --data-dir" else ""
    sys.stdout.write(f"restored what was there at {manifest.created}; start it: flyte-unified start{where}\n")
    for old, new in moved(settings, manifest):
        way = f"mv {old} {old}.old" if old.exists() else f"mkdir -p {old.parent}"
        sys.stdout.write(f"runs name files in {old}; let that path lead to them: {way} && ln -s {new} {old}\n")
    return 0
