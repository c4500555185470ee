"""A podman for tests, with a store of its own and an image made of this machine's own shell: no registry is asked."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGE = "example.com/greeter:1"
_PROGRAMS = ("bash", "cat", "dd", "env", "ls", "mkdir", "seq", "sleep", "wc")
_CONFIGURATIONS = {
    "as it is": "",
    "with runc, and within our own limits": (
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\nnetns = "host"\n[engine]\nruntime = "runc"\n'
    ),
}
"""A machine that is itself a sandbox may lack what podman does by default: higher limits than ours, networks, cgroups v2."""


class Podman:
    """``path`` is a program that is podman; ``missing`` says why there is none."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "podman"
        self.missing = ""
        self._directory = directory
        program = shutil.which("podman")
        if program is None:
            self.missing = "there is no podman (Debian's packages `podman` and `runc`)"
            return
        complaints = []
        for name, configuration in _CONFIGURATIONS.items():
            self._write(program, configuration)
            complaint = self._try()
            if not complaint:
                return
            complaints.append(f"{name}: {complaint}")
        self.missing = f"podman runs no container here ({'; '.join(complaints)})"

    def run(self, *words: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([str(self.path), *words], input=content, capture_output=True, timeout=60, check=False)

    def containers(self) -> list[str]:
        """All that there are, running or not."""
        return self.run("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()

    def _write(self, program: str, configuration: str) -> None:
        (self._directory / "containers.conf").write_text(configuration)
        store, run = self._directory / "store", self._directory / "run"
        storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{store}"\nrunroot = "{run}"\n'
        (self._directory / "storage.conf").write_text(storage)
        variables = f"CONTAINERS_CONF={self._directory}/containers.conf CONTAINERS_STORAGE_CONF={self._directory}/storage.conf"
        self.path.write_text(f'#!/bin/sh\n{variables} exec {program} "$@"\n')
        self.path.chmod(0o755)

    def _try(self) -> str:
        """What stands against containers."""
        made = self.run("import", "-", IMAGE, content=_image())
        tried = made if made.returncode else self.run("run", "--rm", IMAGE, "/bin/sh", "-c", "exit 0")
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
