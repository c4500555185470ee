"""What is kept: the data directory, the database, the objects; and whether the clocks of those who keep them agree."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

from flyte_unified.cli.datadir import server_port
from flyte_unified.cli.doctor.finding import Check, Finding, error, ok, warning
from flyte_unified.core.clock import SystemClock
from flyte_unified.db import dumps
from flyte_unified.db.schema import HEAD
from flyte_unified.settings import Settings, scheme
from flyte_unified.storage import adapters
from flyte_unified.storage.api import join

_SKEW = 5.0
"""Seconds by which clocks may differ; signed URLs and timeouts put up with it."""


async def _directory(settings: Settings) -> AsyncIterator[Finding]:
    directory, subject = settings.data.dir, "data directory"
    if not directory.exists():
        parent = next(parent for parent in directory.parents if parent.exists())
        if os.access(parent, os.W_OK):
            yield ok(subject, f"{directory} will be made by the first start")
        else:
            yield error(subject, f"{directory} cannot be made: {parent} is not ours to write", "choose another with --data-dir")
        return
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        mend = f"chown -R {os.getuid()} {directory}, or choose another with --data-dir"
        yield error(subject, f"{directory} is no directory that this user can write to", mend)
        return
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        yield warning(subject, f"{directory} is open to other users (mode {mode:o})", f"chmod 700 {directory}")
    port = server_port(directory)
    yield ok(subject, f"{directory}, {f'held by the server on port {port}' if port else 'no server runs on it'}")
    newest = max((path.stat().st_mtime for path in directory.iterdir()), default=0.0)
    if (ahead := newest - time.time()) > _SKEW:
        mend = "set the clock right (timedatectl set-ntp true)"
        yield error("clock", f"{directory} was written {ahead:.0f} s in the future: the clock went back", mend)


async def _space(settings: Settings) -> AsyncIterator[Finding]:
    least = settings.storage.min_free_bytes
    for name, place in (("data.dir", str(settings.data.dir)), ("storage.root", settings.storage.root)):
        if scheme(place):
            continue
        existing = next(path for path in (Path(place), *Path(place).parents) if path.exists())
        free = shutil.disk_usage(existing).free
        text = f"{free / (1 << 30):.1f} GiB free for {name}"
        if free < least:
            mend = "free some space, or lower storage.min_free_bytes"
            yield error("disk", f"{text}, less than storage.min_free_bytes: runs are refused", mend)
        else:
            yield ok("disk", text)


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    subject, place = "database", str(settings.database_file)
    if settings.database.url:
        place = "Postgres"
        revision, now = await dumps.look_at_postgres(settings.database.url)
        yield skew("Postgres", now - time.time())
    elif settings.database_file.exists():
        dumps.check_sqlite(settings.database_file)
        revision = dumps.revision_of_sqlite(settings.database_file)
    else:
        revision = None
    if revision is None:
        yield ok(subject, f"{place}: will be made by the first start")
    elif revision == HEAD:
        yield ok(subject, f"{place}: schema {revision}, whole")
    elif revision < HEAD:
        mend = "flyte-unified db backup FILE, then flyte-unified db upgrade; or just start"
        yield warning(subject, f"{place}: schema {revision}, which the next start moves to {HEAD}", mend)
    else:
        mend = "install the newer flyte-unified again, or choose another --data-dir"
        yield error(subject, f"{place}: schema {revision} is newer than this program's {HEAD}", mend)


async def _objects(settings: Settings) -> AsyncIterator[Finding]:
    if not scheme(settings.storage.root):
        return
    store = adapters.choose(settings.storage, key=b"", clock=SystemClock()).store
    try:
        await store.start()
        probe = join(store.base(adapters.DATA), f"_doctor-{os.getpid()}")
        await store.put(probe, b"flyte-unified doctor")
        info = await store.head(probe)
        await store.delete(probe)
    finally:
        await store.stop()
    yield ok("objects", f"{settings.storage.root} can be written, read and deleted")
    if info is not None:
        yield skew("the object store", info.modified / 1e6 - time.time())


def skew(whose: str, seconds: float) -> Finding:
    """How far another clock is ahead of ours."""
    if abs(seconds) <= _SKEW:
        return ok("clock", f"agrees with that of {whose}")
    direction = "behind" if seconds > 0 else "ahead of"
    mend = "set the clock right (timedatectl set-ntp true)"
    return error("clock", f"{abs(seconds):.0f} s {direction} that of {whose}: signatures are refused", mend)


CHECKS = [
    Check("data directory", _directory, "choose another with --data-dir"),
    Check("disk", _space, "choose another with --data-dir"),
    Check("database", _database, "see database.url, or bring a backup back: flyte-unified db restore FILE --replace"),
    Check("objects", _objects, "see storage.root, storage.s3_endpoint and the keys"),
]
