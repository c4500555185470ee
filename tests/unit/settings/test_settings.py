"""Where a setting's value comes from, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flyte_unified import settings
from flyte_unified.settings import FIELDS, SettingsError, find_file, load, variable, written

ROOT = Path(__file__).parents[3]
HOME = {"HOME": "/home/ada"}


@pytest.fixture
def file(tmp_path):
    """A function that writes a settings file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "flyte.yaml"
        path.write_text(text)
        return path

    return write


def source(loaded: settings.Settings, key: str) -> str:
    return next(source for name, _, source in loaded.values() if name == key)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(file):
    """Each layer overrides the ones before it, and the value remembers which one it is from."""
    path = file("server:\n  port: 1\n")
    environ = {variable("server.port"): "2"}
    flags = {"server.port": "3"}
    for expected, told, arguments in (
        (30080, "default", {}),
        (1, f"{path}:server.port", {"file": path}),
        (2, "FLYTE_UNIFIED_SERVER_PORT", {"file": path, "environ": environ}),
        (3, "flag --port", {"file": path, "environ": environ, "flags": flags}),
    ):
        loaded = load(**arguments)
        assert (loaded.server.port, source(loaded, "server.port")) == (expected, told)
        assert source(loaded, "server.host") == "default"


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("server.shutdown_grace", "500ms", 0.5),
        ("server.shutdown_grace", 7, 7),
        ("server.shutdown_grace", "1.5 m", 90),
        ("storage.url_expiry", "2h", 7200),
        ("storage.url_expiry", "2d", 172800),
        ("storage.upload_max_bytes", "64MiB", 64 << 20),
        ("storage.upload_max_bytes", "1gb", 10**9),
        ("storage.upload_max_bytes", 4096, 4096),
        ("execution.warm", "off", False),
        ("execution.warm", True, True),
        ("execution.memory_fraction", "0.5", 0.5),
        ("projects.seed", "a, b,", ("a", "b")),
        ("projects.seed", ["a", 1], ("a", "1")),
        ("storage.root", "s3://bucket/prefix", "s3://bucket/prefix"),
        ("data.dir", "/srv/flyte", Path("/srv/flyte")),
    ],
)
def test_a_value_is_read_in_the_form_people_write_it(key, raw, value):
    """Durations and sizes have units, switches have words, lists have commas."""
    loaded = load(flags={key: raw})
    assert {name: value for name, value, _ in loaded.values()}[key] == value


@pytest.mark.parametrize(
    ("key", "raw", "expected"),
    [
        ("server.port", "http", "a whole number"),
        ("server.port", True, "a whole number"),
        ("server.port", "-1", "at least 0"),
        ("server.port", "65536", "at most 65535"),
        ("server.shutdown_grace", "5 parsecs", "500ms"),
        ("server.shutdown_grace", "-5s", "500ms"),
        ("server.max_message_bytes", "0", "at least 1"),
        ("execution.warm", "maybe", "true or false"),
        ("execution.memory_fraction", "half", "a number"),
        ("execution.python", ["a"], "text"),
        ("projects.seed", 3, "a list"),
        ("log.level", "loud", "one of debug, info, warning, error"),
        ("projects.domains", "", "every run is in a domain"),
        ("execution.process_limit", "3", "process_watermark"),
        ("server.host", "0.0.0.0", "--insecure-public"),
        ("server.public_url", "flyte.example.org", "https://"),
        ("server.task_url", "http://host:99999", "http://host:port"),
        ("apps.url", "https://", "https://"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(key, raw, expected):
    """The error names the setting and says what is expected."""
    with pytest.raises(SettingsError) as caught:
        load(flags={key: raw})
    assert key in caught.value.message
    assert expected in caught.value.message


def test_a_refused_value_is_told_with_its_source(file):
    """Whoever reads the error knows which line or variable to correct."""
    path = file("server: {port: x}")
    with pytest.raises(SettingsError, match=re.escape(f"server.port = 'x' (from {path}:server.port)")):
        load(file=path)
    with pytest.raises(SettingsError, match=r"server.port = 'y' \(from FLYTE_UNIFIED_SERVER_PORT\)"):
        load(environ={"FLYTE_UNIFIED_SERVER_PORT": "y"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("servr: {}", "unknown section 'servr'; the nearest known one is 'server'"),
        ("server: {prot: 1}", "unknown setting 'server.prot'; the nearest known one is 'server.port'"),
        ("server: 30080", "server must hold settings"),
        ("- server", "a mapping of sections is expected"),
        ("server: {port: [", "while parsing"),
        ("1: {}", "unknown section 1"),
    ],
)
def test_a_file_with_an_unknown_or_misplaced_key_is_refused(file, text, expected):
    """A typing error never passes silently; the error names the nearest key there is."""
    with pytest.raises(SettingsError, match=re.escape(expected)):
        load(file=file(text))


def test_an_unknown_variable_or_flag_names_the_nearest_one():
    """Variables with our prefix are settings, so a misspelt one is an error too."""
    with pytest.raises(SettingsError, match=r"FLYTE_UNIFIED_SERVER_PROT; .* 'FLYTE_UNIFIED_SERVER_PORT'"):
        load(environ={"FLYTE_UNIFIED_SERVER_PROT": "1"})
    with pytest.raises(SettingsError, match=r"'server\.port'"):
        load(flags={"server.prot": 1})


def test_variables_that_are_no_settings_pass():
    """The file's address, the tasks' interpreter, and what is not ours are left alone."""
    environ = {"FLYTE_UNIFIED_CONFIG": "x", "FLYTE_UNIFIED_PYTHON": "y", "FLYTE_UNIFIEDX": "z", "PATH": "/bin"}
    assert load(environ=environ) == load()


def test_empty_values_follow_from_the_data_directory(tmp_path):
    """Storage is below the data directory, which follows XDG where that is set."""
    assert load(environ=HOME).data.dir == Path("/home/ada/.flyte-unified")
    assert load(environ=HOME | {"XDG_DATA_HOME": "/xdg"}).data.dir == Path("/xdg/flyte-unified")
    loaded = load(flags={"data.dir": tmp_path})
    assert (loaded.storage.root, loaded.storage.bundles) == (str(tmp_path / "storage"), str(tmp_path / "bundles"))
    assert loaded.execution.slots >= 1


def test_an_ephemeral_server_keeps_only_code_bundles(tmp_path):
    """Clients remember for a day where they uploaded code, so that place outlives the server."""
    loaded = load(flags={"data.dir": "/data"}).ephemeral_in(tmp_path)
    assert loaded.data.dir == tmp_path
    assert (loaded.storage.root, loaded.storage.bundles) == (str(tmp_path / "storage"), "/data/bundles")
    chosen = load(flags={"storage.root": "/objects"}).ephemeral_in(tmp_path)
    assert chosen.storage.root == "/objects"


def test_relative_paths_start_where_they_are_written(file, monkeypatch, tmp_path):
    """A path in the file is relative to the file, one in a flag to the working directory."""
    path = file("data: {dir: here}")
    monkeypatch.chdir("/")
    assert load(file=path).data.dir == tmp_path / "here"
    assert load(flags={"data.dir": "there"}).data.dir == Path("/there")


def test_the_file_is_looked_for_in_a_fixed_order(tmp_path):
    """The flag, the variable, the working directory, the user's own; a chosen one must exist."""
    home, work = tmp_path / "home", tmp_path / "work"
    paths = [tmp_path / "flag.yaml", tmp_path / "variable.yaml", work / "flyte.yaml", home / ".flyte-unified/flyte.yaml"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    environ = {"HOME": str(home)}
    with_variable = environ | {"FLYTE_UNIFIED_CONFIG": str(paths[1])}
    assert find_file(str(paths[0]), environ=with_variable, cwd=work) == paths[0]
    assert find_file(None, environ=with_variable, cwd=work) == paths[1]
    assert find_file(None, environ=environ, cwd=work) == paths[2]
    assert find_file(None, environ=environ, cwd=tmp_path) == paths[3]
    assert find_file(None, environ={"HOME": str(work)}, cwd=tmp_path) is None
    with pytest.raises(SettingsError, match=r"--config: there is no file .*/missing"):
        find_file("missing", environ=environ, cwd=work)


def test_what_is_written_is_read_back():
    """The form in which a default is shown is one that can be put into a file."""
    text = {key: written(key, declared.default) for key, declared in FIELDS.items()}
    import yaml

    flags = {key: yaml.safe_load(value) for key, value in text.items()}
    assert load(environ=HOME, flags={key: value for key, value in flags.items() if value != ""}) == load(environ=HOME)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "http://localhost:5"),
        ({"server.host": "127.0.0.1"}, "http://localhost:5"),
        ({"server.host": "0.0.0.0", "server.insecure_public": True}, "http://localhost:5"),
        ({"server.host": "fd00::1", "server.insecure_public": True}, "http://[fd00::1]:5"),
        ({"server.public_url": "https://flyte.example/"}, "https://flyte.example"),
    ],
)
def test_the_base_url_is_a_name_that_clients_can_use(flags, expected):
    """Never an unspecified address, and what the user says wins."""
    assert load(flags=flags).base_url(5) == expected


def test_the_server_knows_its_own_addresses():
    """Their hosts are answered, without being named once more."""
    given = {"server.public_url": "https://Flyte.example.org/", "server.task_url": "http://flyte.ns.svc:80"}
    assert load(flags={**given, "server.allowed_hosts": ["other"]}).hosts == ("other", "flyte.example.org", "flyte.ns.svc")
    assert load().hosts == ()


def test_the_laptop_example_loads():
    """The example in config/ has no unknown key."""
    assert load(file=ROOT / "config" / "laptop.yaml").execution.slots == 4
