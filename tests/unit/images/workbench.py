"""What builds are tried with: wheels that are made here, so that no index is asked, and the program as the server starts it."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.imagebuilder import definition_pb2
from flyteidl2.task import common_pb2

from flyte_unified.images.environments import Environment, Environments

RUN = "books/development/r1"


def wheel(directory: Path, name: str, version: str, modules: Mapping[str, str]) -> Path:
    """A wheel of pure Python: files by their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(place, text)
    return path


def snowdrops(directory: Path) -> None:
    """Two versions of a package that no index has."""
    for version in ("1.0", "2.0"):
        wheel(directory, "snowdrop", version, {"snowdrop.py": f"VERSION = {version!r}\n"})


@contextlib.contextmanager
def slow_index(wheels: Path, *, login: str = "") -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """The address of an index with one package; an event when that is asked for; one that lets it come.

    With ``login`` (``user:password``) that stands in the address, and nobody else is let in.
    """
    wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
    asked, allowed = threading.Event(), threading.Event()
    (found,) = wheels.glob("snowdrop-2*")

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            page = self.path.endswith("/")
            if not page and self.command == "GET":
                asked.set()
                allowed.wait(30)
            body = f'<a href="/{found.name}">{found.name}</a>'.encode() if page else found.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{login and login + '@'}127.0.0.1:{server.server_port}/simple", asked, allowed
    finally:
        allowed.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Built:
    """How a build ended, and what its log says."""

    code: int
    log: str
    uri: str = ""
    error: execution_pb2.ContainerError | None = None


@dataclass
class Workbench:
    """Images below ``directory``. Every build is an attempt with a directory of its own."""

    directory: Path
    attempts: int = 0

    def __post_init__(self) -> None:
        self.wheels = self.directory / "wheels"
        wheel(self.wheels, "flyte", "9.9", {"flyte/__init__.py": "", "flyte/_bin/__init__.py": "", "flyte/_bin/runtime.py": ""})
        snowdrops(self.wheels)
        self.images = self.directory / "images"
        self.environments = Environments(self.images)

    def packages(self, *names: str) -> dict[str, Any]:
        """A layer of them, and of something that passes for the SDK."""
        options = {"extra_args": f"--no-index --find-links {self.wheels}"}
        return {"pip_packages": {"packages": ["flyte", *names], "options": options}}

    def start(
        self,
        *layers: dict[str, Any],
        name: str = "snow:1",
        python: str = "",
        files: Mapping[str, str | bytes] | None = None,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> tuple[Path, subprocess.Popen[str]]:
        """A build that has begun, in a session of its own, and its directory."""
        self.attempts += 1
        place = self.directory / f"attempt{self.attempts}"
        place.mkdir()
        image = definition_pb2.ImageSpec(
            base_image="python:slim", python_version=python, layers=[definition_pb2.Layer(**layer) for layer in layers]
        )
        (place / "spec.pb").write_bytes(image.SerializeToString())
        if files:
            (place / "sent.tar.gz").write_bytes(_archive(files))
        values = {
            "spec": str(place / "spec.pb"),
            "context": str(place / "sent.tar.gz") if files else "",
            "target_image": name,
        }
        inputs = [common_pb2.NamedLiteral(name=key, value=_text(value)) for key, value in values.items()]
        (place / "inputs.pb").write_bytes(common_pb2.Inputs(literals=inputs).SerializeToString())
        command = [
            *(
                sys.executable,
                "-P",
                "-m",
                "flyte_unified.images.build",
                f"--images={self.images}",
                f"--python={sys.executable}",
            ),
            *(f"--inputs={place}/inputs.pb", f"--outputs={place}", f"--run={RUN}", "--age=99999", "--size=999999999", *options),
        ]
        inherited = {**os.environ, "UV_CACHE_DIR": str(self.directory / "cache"), **(environ or {})}
        return place, subprocess.Popen(
            command,
            cwd=place,
            env=inherited,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def build(self, *layers: dict[str, Any], **more: Any) -> Built:
        place, process = self.start(*layers, **more)
        return self.end(place, process)

    def end(self, place: Path, process: subprocess.Popen[str]) -> Built:
        log, _ = process.communicate(timeout=60)
        if (error := place / "error.pb").exists():
            return Built(process.returncode, log, error=execution_pb2.ErrorDocument.FromString(error.read_bytes()).error)
        outputs = common_pb2.Outputs.FromString((place / "outputs.pb").read_bytes())
        return Built(process.returncode, log, uri=outputs.literals[0].value.scalar.primitive.string_value)

    def named(self, name: str = "snow:1") -> Environment:
        found = self.environments.named(name)
        assert found is not None
        return found

    def says(self, program: str, name: str = "snow:1") -> str:
        """What Python code prints in an image's environment."""
        python = str(self.named(name).python)
        return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def _text(value: str) -> literals_pb2.Literal:
    literal = literals_pb2.Literal()
    literal.scalar.primitive.string_value = value
    return literal


def _archive(files: Mapping[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, said in files.items():
            data = said.encode() if isinstance(said, str) else said
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()
