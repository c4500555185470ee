"""``flyte-unified db``: look after the database while no server runs on it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, cast

from flyte_unified.cli import options
from flyte_unified.cli.datadir import held
from flyte_unified.settings import Settings


def add_to(verbs: Any) -> None:
    db: argparse.ArgumentParser = verbs.add_parser("db", help="look after the database")
    nouns = db.add_subparsers(metavar="WHAT", required=True)
    upgrade = nouns.add_parser(
        "upgrade",
        help="move the database to this version's schema",
        description="Move the database to this version's schema. A start does it too; this is for doing it beforehand.",
    )
    options.add(upgrade)
    upgrade.set_defaults(run=run_upgrade)


def run_upgrade(args: argparse.Namespace) -> int:
    settings = options.load(args)
    with held(settings.data.dir, port=None):
        asyncio.run(_upgrade(settings))
    return 0


async def _upgrade(settings: Settings) -> None:
    from flyte_unified.db.api import Database
    from flyte_unified.db.schema import HEAD
    from flyte_unified.db.sqlite import SQLiteDatabase

    name, database = str(settings.database_file), cast("Database", SQLiteDatabase(settings.database_file))
    if settings.database.url:
        from flyte_unified.db.postgres import PostgresDatabase

        name, database = "the database", PostgresDatabase(settings.database.url)
    try:
        await database.start()
    finally:
        await database.stop()
    sys.stdout.write(f"{name} has schema {HEAD}\n")
