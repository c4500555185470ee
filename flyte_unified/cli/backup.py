"""A server's data as one file, and back.

A backup is a tar archive: the database as it was at one moment, then the objects, which are never written in place, so that all
that the database speaks of is there; the logs; and the key, without which the secrets in the database are lost and which
therefore makes the file as worth protecting as the data directory. Objects in a bucket stay there: that has means of its own.

Runs name their objects by absolute paths. A backup that is restored to another directory says where the old paths must lead.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flyte_unified import __version__
from flyte_unified.cli.datadir import held, private
from flyte_unified.cli.db import database_of, prepared
from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.db import dumps
from flyte_unified.db.schema import HEAD
from flyte_unified.db.sqlite import SQLiteDatabase
from flyte_unified.settings import Settings, scheme
from flyte_unified.storage.api import checked_path

_MANIFEST = "backup.json"
_FORMAT = 1
_TEMPORARY = ".incoming"
"""Where a store keeps what is not whole yet."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an archive is. ``places`` are the directories that it holds, by their names in it, with their paths at home."""

    format: int
    version: str
    schema: str
    created: str
    database: str
    """``flyte.db`` (SQLite) or ``flyte.dump`` (``pg_dump``)."""
    places: dict[str, str]


def backup(settings: Settings, target: Path, *, objects: bool) -> None:
    """Writes ``target``, whole or not at all, while a server may run. Raises FailedPrecondition if it exists."""
    if target.exists():
        raise FailedPrecondition(f"{target} exists; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    postgres = settings.database.url
    places = {name: path for name, path in _places(settings).items() if path.is_dir()} if objects else {}
    manifest = Manifest(
        format=_FORMAT,
        version=__version__,
        schema=HEAD,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        database="flyte.dump" if postgres else "flyte.db",
        places={name: str(path) for name, path in places.items()},
    )
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as directory:  # where there is room for the whole
        dump = Path(directory, manifest.database)
        if postgres:
            dumps.dump_postgres(postgres, dump)
        else:
            dumps.dump_sqlite(settings.database_file, dump)
        unfinished = Path(directory, "archive")
        unfinished.touch(mode=0o600)
        with tarfile.open(unfinished, "w", dereference=True) as archive:  # each file of a link has its own content
            described = Path(directory, _MANIFEST)
            described.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
            _add(archive, described, _MANIFEST)
            _add(archive, dump, manifest.database)
            if (key := settings.data.dir / "key").is_file():
                _add(archive, key, "key")
            for name, place in places.items():
                for path in _files(place):
                    _add(archive, path, f"{name}/{path.relative_to(place).as_posix()}")
        unfinished.rename(target)


def restore(settings: Settings, source: Path, *, replace: bool) -> Manifest:
    """Puts a backup into the data directory and the database of ``settings``, moved to this version's schema.

    Raises FailedPrecondition while a server runs there, for an archive that this version cannot read, and, without
    ``replace``, when there is a database already.
    """
    with held(settings.data.dir, port=None), _opened(source) as archive:
        manifest = _manifest(archive, source)
        postgres = settings.database.url
        if bool(postgres) != (manifest.database == "flyte.dump"):
            raise FailedPrecondition(f"{source} is of {'SQLite' if postgres else 'Postgres'}; database.url says otherwise")
        if not replace and not postgres and settings.database_file.exists():
            raise FailedPrecondition(f"there is a database {settings.database_file} already; --replace gives it up")
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=settings.data.dir) as directory:
            dump = Path(directory, manifest.database)
            _extract(archive, archive.getmember(manifest.database), dump)
            if postgres:
                dumps.restore_postgres(postgres, dump, replace=replace)
                asyncio.run(prepared(database_of(settings)))
            else:
                dumps.check_sqlite(dump)
                asyncio.run(prepared(SQLiteDatabase(dump)))
            _put_files(settings, archive)
            if not postgres:
                dumps.place_sqlite(dump, settings.database_file)
    return manifest


def moved(settings: Settings, manifest: Manifest) -> Iterator[tuple[Path, Path]]:
    """Directories whose old path does not lead to where the restored one is now: ``(old, new)``."""
    for name, new in _places(settings).items():
        if (old := manifest.places.get(name)) and name != "logs" and Path(old).resolve() != new.resolve():
            yield Path(old), new


def _places(settings: Settings) -> dict[str, Path]:
    storage = settings.storage
    kept = {"storage": storage.root, "bundles": storage.bundles, "logs": str(settings.data.dir / "logs")}
    return {name: Path(path) for name, path in kept.items() if not scheme(path)}


def _files(directory: Path) -> Iterator[Path]:
    for place, names, files in os.walk(directory):
        names[:] = sorted(set(names) - {_TEMPORARY})
        yield from (path for name in sorted(files) if (path := Path(place, name)).is_file())


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """As long as it is now: a log may grow meanwhile, or be gone. What is cut off as it is read is read again."""
    start = archive.offset
    with suppress(FileNotFoundError), path.open("rb") as file:
        while True:
            described = archive.gettarinfo(arcname=name, fileobj=file)
            try:
                archive.addfile(described, file)
                return
            except OSError:
                if os.fstat(file.fileno()).st_size >= described.size:
                    raise
            file.seek(0)
            archive.fileobj.seek(start)
            archive.offset = start


def _opened(source: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(source)
    except tarfile.TarError as error:
        raise FailedPrecondition(f"{source} is no backup: it is no tar archive") from error
    except OSError as error:
        raise FailedPrecondition(f"{source} cannot be read: {error.strerror}") from error


def _manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    try:
        member = archive.extractfile(_MANIFEST)
        manifest = Manifest(**json.load(member)) if member is not None else None
    except (KeyError, TypeError, ValueError):
        manifest = None
    if manifest is None or manifest.format != _FORMAT:
        raise FailedPrecondition(f"{source} is no backup that flyte-unified {__version__} can read")
    if manifest.schema > HEAD:
        raise FailedPrecondition(
            f"{source} has schema {manifest.schema}, newer than {HEAD}: install flyte-unified {manifest.version}"
        )
    return manifest


def _put_files(settings: Settings, archive: tarfile.TarFile) -> None:
    """Whole files that are there already are as they were: a restore that was cut short may be repeated."""
    places = _places(settings)
    for member in archive:
        place, _, name = member.name.partition("/")
        if member.name == "key" and not settings.server.key:
            _extract(archive, member, settings.data.dir / "key")
        elif place in places and member.isfile():
            target = places[place] / checked_path(name, field="backup")
            if not target.is_file() or target.stat().st_size != member.size:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _extract(archive, member, target)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise FailedPrecondition(f"the backup holds {member.name}, which is no file")
    with closing(content), open(target, "wb", opener=private) as file:
        shutil.copyfileobj(content, file)
    os.utime(target, (member.mtime, member.mtime))
