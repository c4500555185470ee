"""The data directory: private, and one server's at a time."""

from __future__ import annotations

import fcntl
import stat
import tempfile

import pytest

from flyte_unified.cli.datadir import LOCK, held, server_port, temporary
from flyte_unified.core.errors import FailedPrecondition


def test_a_second_holder_is_refused_until_the_first_is_gone(tmp_path):
    """The lock ends with the block."""
    directory = tmp_path / "a" / "b"
    with held(directory, port=1), pytest.raises(FailedPrecondition, match="on port 1 since"), held(directory, port=2):
        pass
    with held(directory, port=3):
        assert '"port": 3' in (directory / LOCK).read_text()


def test_a_holder_that_has_not_signed_yet_is_told_as_such(tmp_path):
    """Between taking the lock and writing into it there is a moment."""
    directory = tmp_path / "data"
    with held(directory, port=1):
        (directory / LOCK).write_text("")
        with pytest.raises(FailedPrecondition, match="just starting"), held(directory, port=2):
            pass


def test_the_port_of_its_server(tmp_path):
    """While one runs there; not that of a command, and not where there is nothing."""
    for directory in (tmp_path / "nothing", tmp_path / "file" / "below", tmp_path / "data"):
        (tmp_path / "file").touch()
        assert server_port(directory) is None
    with held(tmp_path / "data", port=7):
        assert server_port(tmp_path / "data") == 7
        (tmp_path / "data" / LOCK).write_text("")
        with pytest.raises(FailedPrecondition, match="just starting"):
            server_port(tmp_path / "data")
    with held(tmp_path / "data", port=None):
        assert server_port(tmp_path / "data") is None


def test_an_empty_directory_is_closed_to_others(tmp_path):
    """Keys and results are for their owner alone."""
    tmp_path.chmod(0o755)
    with held(tmp_path, port=1):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_directory_with_other_things_is_not_touched(tmp_path):
    """A slip such as ``--data-dir /tmp`` must not close a directory that others use."""
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FailedPrecondition, match="holds other things"), held(tmp_path, port=1):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["file", "unlockable"])
def test_what_cannot_be_a_data_directory_is_an_error(tmp_path, place):
    """A file, or a directory in which nothing can be written: the error names the path, and says what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "unlockable" / LOCK).mkdir(parents=True)
    told = f"cannot use {tmp_path / place} as data directory: .*; choose another with --data-dir"
    with pytest.raises(FailedPrecondition, match=told), held(tmp_path / place, port=1):
        pass


def test_a_temporary_directory_is_gone_at_the_end():
    """With everything in it."""
    with temporary() as path:
        (path / "a").mkdir()
        (path / "a" / "b").touch()
    assert not path.exists()


@pytest.fixture
def abandoned(tmp_path, monkeypatch):
    """A temporary directory as a server that was killed leaves it: signed, and locked by nobody."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = tmp_path / "flyte-unified-abandoned"
    (directory / "keeper").mkdir(parents=True)
    (directory / LOCK).write_text('{"pid": 1}')
    return directory


def test_a_killed_servers_temporary_directory_is_swept(abandoned):
    """The next ephemeral start removes it, with everything in it."""
    (abandoned / "flyte.db").touch()
    with temporary():
        assert not abandoned.exists()


@pytest.mark.parametrize("name", [LOCK, "keeper/keeper.lock"])
def test_a_temporary_directory_in_use_stays(abandoned, name):
    """A server holds its lock as long as it lives, and its keeper another."""
    with (abandoned / name).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with temporary():
            assert abandoned.exists()


def test_what_may_not_be_a_servers_stays(abandoned, tmp_path):
    """A directory that bears the name by chance, and one whose server has not signed yet."""
    (abandoned / LOCK).write_text("")
    (tmp_path / "flyte-unified-notes").mkdir()
    (tmp_path / "flyte-unified-notes" / "thesis.tex").touch()
    (tmp_path / "flyte-unified-file").touch()
    with temporary():
        assert {path.name for path in tmp_path.iterdir()} >= {abandoned.name, "flyte-unified-notes", "flyte-unified-file"}
