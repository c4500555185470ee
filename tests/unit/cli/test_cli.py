"""The verbs that only print."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from flyte_unified import __version__
from flyte_unified.cli import main


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No settings file but a test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


def test_show_prints_each_value_and_its_source(capsys, tmp_path, monkeypatch):
    """One line per setting; a password is never among it."""
    (tmp_path / "flyte.yaml").write_text("server: {public_url: 'https://ada:secret@flyte.example'}\n")
    monkeypatch.setenv("FLYTE_UNIFIED_LOG_LEVEL", "error")
    assert main(["config", "show", "--port", "8080"]) == 0
    lines = {key: rest for key, *rest in (line.split() for line in capsys.readouterr().out.splitlines())}
    assert lines["server.port"] == ["8080", "flag", "--port"]
    assert lines["log.level"] == ["error", "FLYTE_UNIFIED_LOG_LEVEL"]
    assert lines["server.public_url"] == ["https://ada:***@flyte.example", f"{tmp_path}/flyte.yaml:server.public_url"]
    assert lines["cache.reservation_heartbeat"] == ["10s", "default"]


def test_the_client_configuration_is_read_by_the_sdk(tmp_path, capsys):
    """The real SDK finds the endpoint, plain text, the remote builder, project and domain in the file."""
    from flyte.config import Config

    path = tmp_path / ".flyte" / "config.yaml"
    assert main(["config", "client", "--port", "8080", "--write", str(path)]) == 0
    read = Config.auto(str(path))
    assert (read.platform.endpoint, read.platform.insecure) == ("dns:///localhost:8080", True)
    assert (read.task.project, read.task.domain, read.image.builder) == ("flytesnacks", "development", "remote")
    assert str(path) in capsys.readouterr().out


def test_a_client_of_a_server_behind_tls_is_not_insecure(capsys, monkeypatch):
    """``server.public_url`` is what clients use."""
    monkeypatch.setenv("FLYTE_UNIFIED_SERVER_PUBLIC_URL", "https://flyte.example")
    main(["config", "client"])
    assert yaml.safe_load(capsys.readouterr().out)["admin"] == {"endpoint": "dns:///flyte.example", "insecure": False}


def test_another_client_configuration_is_not_overwritten(tmp_path, capsys):
    """Writing the same again is fine; other content needs ``--force``."""
    path = tmp_path / "config.yaml"
    arguments = ["config", "client", "--write", str(path)]
    assert [main(arguments), main(arguments)] == [0, 0]
    path.write_text("admin: {endpoint: dns:///flyte.example}")
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert "flyte.example" in path.read_text()
    assert main([*arguments, "--force"]) == 0
    assert "localhost" in path.read_text()


def test_an_error_in_the_settings_is_one_line_and_status_1(tmp_path, capsys):
    """Nobody is shown a traceback for a typing error."""
    (tmp_path / "flyte.yaml").write_text("server: {prot: 1}")
    assert main(["config", "show"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"flyte-unified: {tmp_path}/flyte.yaml: unknown setting 'server.prot'; the nearest known one is 'server.port'"
    ]


@pytest.mark.parametrize("path", ["directory", "file/config.yaml", "a" * 300])
def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys, path):
    """What the machine refuses is one line with the file's name, not a traceback."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    assert main(["config", "client", "--write", path]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flyte-unified: {path.partition('/')[0]}")


def test_version_names_what_a_bug_report_needs(capsys):
    """Ours, Python's, the messages' and the SDK's."""
    assert main(["version"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["flyte-unified"] == __version__
    assert lines["python"].endswith(f"({sys.executable})")
    assert {"flyteidl2", "flyte", "platform"} <= set(lines)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"flyte-unified {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["config", "client", "--help"]])
def test_help_is_instant(arguments):
    """Asking for help imports no server, no database and no logging library."""
    program = (
        "import json, sys\n"
        "from flyte_unified.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": ""}
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, env=environ, check=True)
    assert b"usage: flyte-unified" in done.stdout
    heavy = {"aiohttp", "alembic", "flyteidl2", "grpclib", "orjson", "psutil", "sqlalchemy", "structlog", "yaml"}
    assert heavy.isdisjoint(json.loads(done.stderr))
