"""Podman, with a store of its own, and docker: with an image made of this machine's own shell, so no registry is asked."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGES = ("example.com/greeter:1", "example.com/breaker:1")
_PROGRAMS = ("bash", "cat", "dd", "env", "ls", "mkdir", "seq", "sleep", "wc")
_CONFIGURATIONS = {
    "as it is": "",
    "with runc, and within our own limits": (
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\nnetns = "host"\n[engine]\nruntime = "runc"\n'
    ),
}
"""A machine that is itself a sandbox may lack what podman does by default: higher limits than ours, networks, cgroups v2."""


class Engine:
    """``name`` is podman or docker, ``path`` a program that is it; ``missing`` says why there is none."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.path = directory / name
        self.missing = ""
        self._directory = directory
        program = shutil.which(name)
        if program is None:
            self.missing = f"there is no {name} (Debian's packages `podman` and `runc`, or `docker.io`)"
            return
        complaints = []
        for configured, configuration in _CONFIGURATIONS.items():
            if name == "docker" and configuration:
                break
            self._write(program, configuration)
            complaint = self._try()
            if not complaint:
                return
            complaints.append(f"{configured}: {complaint}")
        self.missing = f"{name} runs no container here ({'; '.join(complaints)})"

    def run(self, *words: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([str(self.path), *words], input=content, capture_output=True, timeout=60, check=False)

    def containers(self) -> list[str]:
        """Ours, running or not."""
        return self.run("ps", "--all", "--filter", "name=flyte-", "--format", "{{.Names}}").stdout.decode().split()

    def forget(self) -> None:
        """Leaves nothing in a store that is somebody's."""
        if left := self.containers():
            self.run("rm", "--force", *left)
        self.run("rmi", *IMAGES)

    def _write(self, program: str, configuration: str) -> None:
        (self._directory / "containers.conf").write_text(configuration)
        store, run = self._directory / "store", self._directory / "run"
        storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{store}"\nrunroot = "{run}"\n'
        (self._directory / "storage.conf").write_text(storage)
        variables = f"CONTAINERS_CONF={self._directory}/containers.conf CONTAINERS_STORAGE_CONF={self._directory}/storage.conf"
        if host := os.environ.get("DOCKER_HOST"):
            variables += f" DOCKER_HOST={host}"
        self.path.write_text(f'#!/bin/sh\n{variables} exec {program} "$@"\n')
        self.path.chmod(0o755)

    def _try(self) -> str:
        """What stands against containers."""
        made = self.run("import", "-", IMAGES[0], content=_image())
        for image in IMAGES[1:]:
            self.run("tag", IMAGES[0], image)
        tried = made if made.returncode else self.run("run", "--rm", IMAGES[0], "/bin/sh", "-c", "exit 0")
        return tried.stderr.decode().strip().rpartition("\n")[2] if tried.returncode else ""


def _image() -> bytes:
    """A file system with a shell and a few programs, and the libraries that they are linked with."""
    files: dict[str, Path] = {}
    for name in _PROGRAMS:
        found = shutil.which(name)
        assert found is not None, name
        files[f"bin/{name}"] = Path(found).resolve()
        linked = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        files |= {path.lstrip("/"): Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", linked)}
    files["bin/sh"] = files["bin/bash"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for directory in ("tmp", "etc", "var"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(entry)
        for place, path in files.items():
            archive.add(path, place)
    return out.getvalue()
