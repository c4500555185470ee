"""``flyte-unified db``."""

from __future__ import annotations

import os
import sqlite3
import stat
import tarfile
from contextlib import closing

import pytest

from flyte_unified.cli import backup, main
from flyte_unified.cli.datadir import held
from flyte_unified.db.schema import HEAD


@pytest.fixture
def upgrade(tmp_path, monkeypatch):
    """Run the verb on a data directory; its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return lambda: main(["db", "upgrade", "--data-dir", str(tmp_path / "data")])


def revision(tmp_path) -> str:
    with closing(sqlite3.connect(tmp_path / "data" / "flyte.db")) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_a_database_is_made_and_stays_as_it_is(upgrade, tmp_path, capsys):
    """Twice is once, and the schema is told."""
    assert [upgrade(), upgrade()] == [0, 0]
    assert revision(tmp_path) == HEAD
    assert capsys.readouterr().out == f"{tmp_path}/data/flyte.db has schema {HEAD}\n" * 2


def test_a_newer_database_is_left_alone(upgrade, tmp_path, capsys):
    """A schema that this version does not know is refused with a way out."""
    upgrade()
    with closing(sqlite3.connect(tmp_path / "data" / "flyte.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE compatibility SET minimum = '9999'")
    assert upgrade() == 1
    assert "9999" in capsys.readouterr().err
    assert revision(tmp_path) == "9999"


def test_a_database_in_use_is_not_upgraded(upgrade, tmp_path, capsys):
    """Nobody moves a schema under a running server."""
    with held(tmp_path / "data", port=7):
        assert upgrade() == 1
    assert "on port 7 since" in capsys.readouterr().err


@pytest.fixture
def db(upgrade, tmp_path):
    """``db VERB`` on one of two data directories, ``here`` with a database and ``there`` without; its exit status."""

    def run(verb, *arguments, on="here"):
        return main(["db", verb, *map(str, arguments), "--data-dir", str(tmp_path / on)])

    assert run("upgrade") == 0
    return run


def execute(directory, statement):
    with closing(sqlite3.connect(directory / "flyte.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def test_a_backup_brings_all_back(db, tmp_path, capsys):
    """Database, objects, logs and key, for their owner alone; where paths have to lead when the place is another one."""
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "flyte.tar"
    for name in ("key", "storage/p/a.pb", "bundles/b", "logs/r1.log", "storage/.incoming/half", "work/w"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    execute(here, "UPDATE compatibility SET minimum = 'x'")
    with held(here, port=7):  # a server runs
        assert db("backup", file) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert db("restore", file, on="there") == 0
    told = capsys.readouterr().out
    assert f"flyte-unified start --data-dir {there}\n" in told
    assert f"mv {here}/storage {here}/storage.old && ln -s {there}/storage {here}/storage\n" in told
    assert execute(there, "SELECT minimum FROM compatibility") == [("x",)]
    found = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert found == {"key", "storage/p/a.pb", "bundles/b", "logs/r1.log", "flyte.db", "server.lock"}
    assert (there / "storage/p/a.pb").read_text() == "storage/p/a.pb"
    assert {stat.S_IMODE(path.stat().st_mode) for path in there.rglob("*") if path.is_file()} <= {0o600, 0o644}


def test_files_that_change_meanwhile_are_whole_files_of_some_moment(db, tmp_path, monkeypatch):
    """One that grows, is cut off or goes away as it is read; files that share their content, and a pipe, are no trouble."""
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "flyte.tar"
    logs = here / "logs"
    logs.mkdir()
    for name in ("cut", "gone", "grown", "here", "next"):
        (logs / name).write_bytes(name.encode() * 10_000)
    os.link(logs / "here", logs / "too")
    os.mkfifo(logs / "pipe")
    described = tarfile.TarFile.gettarinfo

    def meanwhile(archive, *args, arcname, **more):
        told = described(archive, *args, arcname=arcname, **more)
        if arcname == "logs/cut" and told.size > 3000:
            os.truncate(logs / "cut", told.size // 3)
        elif arcname == "logs/gone":
            (logs / "gone").unlink()
            (logs / "next").unlink()
        elif arcname == "logs/grown":
            (logs / "grown").write_bytes(b"grown" * 10_000 + b"more")
        return told

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", meanwhile)
    assert db("backup", file) == 0
    assert db("restore", file, on="there") == 0
    found = {path.name: path.read_bytes() for path in (there / "logs").iterdir()}
    assert found == {
        "cut": b"cut" * 370 + b"c",
        "gone": b"gone" * 10_000,
        "grown": b"grown" * 10_000,
        "here": b"here" * 10_000,
        "too": b"here" * 10_000,
    }


def test_what_is_there_is_not_given_up_unasked(db, tmp_path, capsys):
    """Neither a file of the backup's name, nor a database, nor one that a server uses."""
    here, file = tmp_path / "here", tmp_path / "flyte.tar"
    assert [db("backup", file, "--database-only"), db("backup", file)] == [0, 1]
    assert f"{file} exists" in capsys.readouterr().err
    assert db("backup", file / "within a file") == 1
    assert f"{file}/within a file could not be written: " in capsys.readouterr().err
    execute(here, "UPDATE compatibility SET minimum = 'later'")
    assert db("restore", file) == 1
    assert "--replace gives it up" in capsys.readouterr().err
    with held(here, port=7):
        assert db("restore", file, "--replace") == 1
    assert "on port 7" in capsys.readouterr().err
    assert execute(here, "SELECT minimum FROM compatibility") == [("later",)]
    assert db("restore", file, "--replace") == 0
    assert execute(here, "SELECT minimum FROM compatibility") != [("later",)]


@pytest.mark.parametrize("damage", ["none", "text", "tar", "newer", "damaged"])
def test_a_file_that_is_no_backup_changes_nothing(db, tmp_path, capsys, damage, monkeypatch):
    """One that is not there, no archive, another archive, of a newer program, or with a broken database."""
    file = tmp_path / "flyte.tar"
    if damage == "text":
        file.write_text("text")
    elif damage == "tar":
        with tarfile.open(file, "w") as archive:
            archive.add(__file__, "test.py")
    elif damage == "newer":
        with monkeypatch.context() as patch:
            patch.setattr(backup, "HEAD", "9999")
            assert db("backup", file) == 0
    elif damage == "damaged":
        assert db("backup", file) == 0
        content = file.read_bytes()
        at = content.index(b"SQLite format 3") + 8192
        file.write_bytes(content[:at] + b"\xff" * 4096 + content[at + 4096 :])
    before = execute(tmp_path / "here", "SELECT * FROM alembic_version")
    assert db("restore", file, "--replace") == 1
    told = {
        "none": "cannot be read",
        "text": "is no tar archive",
        "tar": "is no backup",
        "newer": "9999",
        "damaged": "is damaged",
    }
    assert told[damage] in capsys.readouterr().err
    assert execute(tmp_path / "here", "SELECT * FROM alembic_version") == before


def test_what_is_no_database_of_ours_is_named(db, tmp_path, capsys):
    """Neither a file that SQLite cannot read nor another program's tables end in a traceback."""
    for name in ("text", "tables"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "text" / "flyte.db").write_text("not a database")
    execute(tmp_path / "tables", "CREATE TABLE actions (x)")
    assert [db("upgrade", on="text"), db("upgrade", on="tables"), db("backup", tmp_path / "flyte.tar", on="text")] == [1, 1, 1]
    told = capsys.readouterr().err.splitlines()
    for line, name in zip(told, ("text", "tables", "text"), strict=True):
        assert line.startswith(f"flyte-unified: {tmp_path}/{name}/flyte.db can't be used as the database: ")
