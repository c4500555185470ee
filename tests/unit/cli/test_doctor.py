"""``flyte-unified doctor``: what it finds on machines of every kind, and that each finding has its mend."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from flyte_unified.cli import main
from flyte_unified.cli.datadir import held
from flyte_unified.cli.doctor import cluster
from flyte_unified.cli.doctor.clients import config_path
from flyte_unified.cli.doctor.finding import Finding, Level, examined
from flyte_unified.db.schema import HEAD
from flyte_unified.settings import load
from flyte_unified.testing.fake_kube import FakeKube, User


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's home, where they are, with a server's settings that suit it."""
    monkeypatch.chdir(tmp_path)
    for name in ("UCTL_CONFIG", "FLYTECTL_CONFIG", "XDG_DATA_HOME", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLYTE_UNIFIED_SERVER_PORT", "0")
    return tmp_path


@pytest.fixture
def doctor(home, capsys):
    """Its exit status, and the findings that are not ok by their subject."""

    def look(*arguments):
        capsys.readouterr()
        code = main(["doctor", "--json", *arguments])
        findings = json.loads(capsys.readouterr().out)
        assert all(finding["mend"] for finding in findings if finding["level"] != "ok"), findings
        assert code == any(finding["level"] == "error" for finding in findings)
        return code, {finding["subject"]: (finding["level"], finding["finding"]) for finding in findings}

    return look


def test_a_healthy_laptop(doctor, home, capsys):
    """Nothing keeps a server from starting, and nothing was made or changed by looking."""
    code, findings = doctor()
    assert code == 0
    assert findings["database"] == ("ok", f"{home}/.flyte-unified/flyte.db: will be made by the first start")
    assert findings["SDK"][0] == "ok"
    assert findings["client"][0] == "warning"
    assert list(home.iterdir()) == []
    main(["db", "upgrade"])
    main(["config", "client", "--write", ".flyte/config.yaml"])
    code, findings = doctor()
    assert (code, findings["client"][0]) == (0, "ok")
    assert findings["database"][1].endswith(f"schema {HEAD}, whole")
    capsys.readouterr()
    assert main(["doctor"]) == 0
    assert f"schema {HEAD}, whole" in capsys.readouterr().out


def test_a_port_that_another_holds(doctor):
    """The finding says who."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, findings = doctor("--port", str(taken.getsockname()[1]))
    assert (code, findings["port"][0]) == (1, "error")
    assert f"process {os.getpid()}" in findings["port"][1]


def test_a_port_that_its_server_holds(doctor, home):
    """That is as it should be."""
    with socket.create_server(("127.0.0.1", 0)) as ours, held(home / ".flyte-unified", port=ours.getsockname()[1]):
        code, findings = doctor("--port", str(ours.getsockname()[1]))
    assert (code, findings["port"][0]) == (0, "ok")
    assert "held by the server on port" in findings["data directory"][1]


@pytest.mark.parametrize(("revision", "level"), [("0001", "warning"), ("9999", "error")])
def test_a_database_of_another_version(doctor, home, revision, level):
    """An older one will be moved, a newer one needs its own program; neither is touched."""
    main(["db", "upgrade"])
    with closing(sqlite3.connect(home / ".flyte-unified/flyte.db")) as database, database:
        database.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
    _, findings = doctor()
    assert findings["database"][0] == level
    assert revision in findings["database"][1]


def test_a_damaged_database_in_an_open_directory_of_the_future(doctor, home):
    """Each is told."""
    main(["db", "upgrade"])
    directory = home / ".flyte-unified"
    (directory / "flyte.db").write_text("no database")
    directory.chmod(0o755)
    os.utime(directory / "flyte.db", (time.time() + 3600,) * 2)
    code, findings = doctor()
    assert code == 1
    assert {subject: findings[subject][0] for subject in ("database", "clock")} == {"database": "error", "clock": "error"}
    assert "damaged" in findings["database"][1]


def test_a_python_without_the_sdk(doctor, home):
    """And one that is none at all."""
    python = home / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    python.chmod(0o755)
    code, findings = doctor("--python", str(python))
    assert (code, findings["SDK"][0]) == (1, "error")
    code, findings = doctor("--python", "/nothing")
    assert (code, findings["tasks' Python"][0]) == (1, "error")


@pytest.mark.parametrize(("limit", "level"), [(64, "error"), (1024, "warning"), (8192, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_few_open_files(doctor, monkeypatch, limit, level):
    """A server of many tasks needs many."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, 8192))
    assert doctor()[1]["open files"][0] == level


@pytest.mark.parametrize(
    ("addresses", "level"), [(["127.0.0.1"], "warning"), (["127.0.0.1", "::1"], "ok"), (["10.1.2.3"], "error"), ([], "error")]
)
def test_where_localhost_leads(doctor, monkeypatch, addresses, level):
    """The server listens on both families' loopback."""

    def getaddrinfo(host, *_, **__):
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert doctor()[1]["localhost"][0] == level


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"admin": {"endpoint": "dns:///flyte.example"}}, "leads to flyte.example"),
        ({"admin": {"endpoint": "dns:///localhost:7"}}, "admin.insecure must be true"),
        ({"admin": {"endpoint": "localhost:7", "insecure": True}, "image": {"builder": "local"}}, "image.builder"),
        ([], "leads to nowhere"),
    ],
)
def test_a_client_that_goes_elsewhere(doctor, home, config, told):
    """Another server, TLS where there is none, images built by Docker."""
    (home / "config.yaml").write_text(json.dumps(config))
    with held(home / ".flyte-unified", port=7):
        level, text = doctor()[1]["client"]
    assert (level, told in text) == ("warning", True), text


@pytest.mark.parametrize(
    ("files", "environ"),
    [
        (["config.yaml", "work/config.yaml", "work/.flyte/config.yaml"], {}),
        ([".flyte/config.yaml", ".git"], {"FLYTECTL_CONFIG": "/named"}),
        ([".flyte/config.yaml"], {"FLYTECTL_CONFIG": "/named"}),
        ([".union/config.yaml", ".flyte/config.yaml"], {}),
        ([".flyte/config.yaml"], {}),
        ([], {}),
    ],
)
def test_the_configuration_is_looked_for_as_the_sdk_does(home, monkeypatch, files, environ):
    """Wherever the SDK's own search ends."""
    from flyte.config._reader import resolve_config_path

    for name in ("work/file", *files):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        if name == ".git":
            subprocess.run(["git", "init", "-q", str(home)], check=True)
        else:
            (home / name).touch()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home / "work")
    found = resolve_config_path()
    assert config_path(Path.cwd(), os.environ) == (found.absolute() if found else None)


async def findings_of(kubeconfig: Path) -> dict[str, Finding]:
    settings = load(flags={"kubernetes.kubeconfig": str(kubeconfig)})
    return {finding.subject: finding for finding in await examined(cluster.CHECKS, settings)}


async def test_a_cluster(tmp_path):
    """One that does not know our kind, one that allows nothing, and one that is not there."""
    async with FakeKube.running() as fake:
        kubeconfig = fake.kubeconfig(tmp_path / "kubeconfig")
        found = await findings_of(kubeconfig)
        assert found["TaskAction"].level is Level.ERROR
        assert found["rights"].level is Level.OK
        fake.access.enforced = True
        fake.access.add("nobody", User("nobody", ()))
        found = await findings_of(fake.kubeconfig(kubeconfig, token="nobody"))
        assert found["rights"].level is Level.ERROR
        assert "watch taskactions" in found["rights"].text
    found = await findings_of(kubeconfig)
    assert found["cluster"].level is Level.ERROR
    assert found["cluster"].mend
