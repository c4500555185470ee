"""A database as a file, and back: SQLite's while a server writes to it, Postgres' by its own programs.

A dump is of one moment. What it is put in the place of must be at rest.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from flyte_unified.core.errors import FailedPrecondition, Unavailable

_BUSY_SECONDS = 30.0
_OURS = "application_name = 'flyte-unified'"


def dump_sqlite(source: Path, target: Path) -> None:
    """Copies ``source`` as it is now to the new file ``target``. Raises FailedPrecondition when there is no database."""
    if not source.is_file():
        raise FailedPrecondition(f"there is no database {source}")
    target.touch(mode=0o600)
    live = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    with closing(live), closing(sqlite3.connect(target)) as copy:
        try:
            live.backup(copy)  # in one step: in several, SQLite would begin anew at each write of the server
        except sqlite3.DatabaseError as error:
            raise FailedPrecondition(unusable(source, error)) from error


def unusable(path: Path, error: object) -> str:
    """What a user is told of a file that SQLite, or what stands in it, keeps from being our database."""
    return f"{path} can't be used as the database: {error}; choose another --data-dir, or bring a backup back (db restore)"


def check_sqlite(path: Path) -> None:
    """Raises FailedPrecondition for a file that is no whole database."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise FailedPrecondition(f"{path} is damaged: {found}")


def revision_of_sqlite(path: Path) -> str | None:
    """The schema of a database that may be in use; None where there is none in it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


async def look_at_postgres(url: str) -> tuple[str | None, float]:
    """The schema of a database that may be in use, and what its server's clock says (seconds). Raises Unavailable."""
    from flyte_unified.db.postgres_client import connect, told  # a laptop has no need of it

    try:
        connection = await connect(url, statement_timeout=_BUSY_SECONDS)
        try:
            now = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
            exists = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
            return (await connection.fetchval("SELECT version_num FROM alembic_version") if exists else None), now
        finally:
            await connection.close()
    except Exception as error:
        raise told(error) from error


def place_sqlite(source: Path, target: Path) -> None:
    """Puts the database ``source`` where ``target`` was; nobody has either open."""
    for suffix in ("-wal", "-shm"):  # those of the old one say nothing about the new one
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    source.replace(target)


def dump_postgres(url: str, target: Path) -> None:
    """Writes a dump in ``pg_dump``'s own format to the new file ``target``."""
    target.touch(mode=0o600)
    _run("pg_dump", url, ["--format=custom", "--no-owner", f"--file={target}"])


def restore_postgres(url: str, source: Path, *, replace: bool) -> None:
    """Puts ``source`` in the place of what the database holds, wholly or not at all.

    Raises FailedPrecondition while servers are connected, and, without ``replace``, when it holds anything of ours.
    """
    if servers := int(_ask(url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND " + _OURS)):
        raise FailedPrecondition(f"servers are connected to the database ({servers} connections); stop them first")
    if not replace and _ask(url, "SELECT to_regclass('alembic_version')"):
        raise FailedPrecondition("the database holds a server's tables already; --replace gives them up")
    _run("pg_restore", url, ["--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error", str(source)])


def _ask(url: str, query: str) -> str:
    return _run("psql", url, ["--no-psqlrc", "--tuples-only", "--no-align", f"--command={query}"]).strip()


def _run(program: str, url: str, arguments: Sequence[str]) -> str:
    found = shutil.which(program)
    if found is None:
        raise FailedPrecondition(f"{program} is not there: install PostgreSQL's client programs (Debian: postgresql-client)")
    address, environment = _address(url)
    command = [found, f"--dbname={address}", "--no-password", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{program} failed: {done.stderr.strip()}")
    return done.stdout


def _address(url: str) -> tuple[str, Mapping[str, str]]:
    """``url`` without its password, which would stand in the list of processes, and the environment that has it."""
    parts = urlsplit(url)
    if not parts.password:
        return url, {}
    user, _, place = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{place}"))
    return bare, {"PGPASSWORD": unquote(parts.password)}
