"""``flyte-unified db upgrade``."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from flyte_unified.cli import main
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
