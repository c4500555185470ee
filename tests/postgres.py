"""A real Postgres server for tests: Debian's, in a temporary directory, on a free port.

It never waits for the disk: tests kill processes, and what those wrote the system keeps.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flyte_unified.core.errors import FlyteUnifiedError


def _programs() -> Path | None:
    """Where Debian keeps the programs of the newest server; elsewhere they are on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


PROGRAMS = _programs()
MISSING = "" if PROGRAMS else "there is no Postgres server (Debian's package `postgresql`)"


class PostgresServer:
    """One cluster of databases. It is no child of the tests, which end every process they find among theirs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = 0

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://flyte@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        self._port = self._port or _free_port()  # not before it is needed: other tests look for free ports too
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._directory}/log", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """``fast`` ends sessions and writes everything; ``immediate`` is a crash: the next start recovers."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def kill(self) -> None:
        """As if the power were cut: every process of the server is gone at once."""
        main = psutil.Process(int((self._directory / "data/postmaster.pid").read_text().split()[0]))
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)

    def create(self) -> None:
        self._run("initdb", "--username=flyte", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(PROGRAMS / program), f"--pgdata={self._directory}/data", *arguments]
        done = subprocess.run(command, capture_output=False, stdout=subprocess.DEVNULL, cwd="/", check=False, **nobody)  # type: ignore[call-overload]  # user and group
        if done.returncode:
            log = self._directory / "log"
            raise FlyteUnifiedError(f"{program} failed: {log.read_text()[-2000:] if log.exists() else ''}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running() -> Iterator[PostgresServer]:
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=Path("/tmp").resolve()))
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody", "nogroup")
    server = PostgresServer(directory)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests. Who stops it, starts it again."""
    with running() as server:
        yield server
