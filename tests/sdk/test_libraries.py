"""Ray, Dask, Spark and PyTorch themselves, in their local forms. They are large: only `make test-plugins` runs this.

Each has an environment of its own in the user's cache, made once. PyTorch is Debian's (`python3-torch`), as what PyPI has for
Linux brings gigabytes of CUDA along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from flyte_unified.testing import Backend
from tests.sdk.conftest import PROGRAMS, SETTINGS, Client, by_case

pytestmark = pytest.mark.skipif(not os.environ.get("FLYTE_TEST_PLUGINS"), reason="large libraries: `make test-plugins`")

SDK = version("flyte")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flyte-unified-tests"
_SYSTEM = "/usr/bin/python3"


def interpreter(library: str) -> Path:
    """Of an environment that has the library and the SDK's plugin for it."""
    own = library == "torch"
    if library == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java (Debian's `default-jre-headless`)")
    if own and subprocess.run([_SYSTEM, "-c", "import torch"], capture_output=True, check=False).returncode:
        pytest.skip("there is no PyTorch without CUDA (Debian's `python3-torch`)")
    place = CACHE / f"{library}-{SDK}-{sys.version_info.major}.{sys.version_info.minor}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
        assert uv is not None, "uv makes the environments"
        base = ("--python", _SYSTEM, "--system-site-packages") if own else ("--python", sys.executable)
        subprocess.run([uv, "venv", "--quiet", *base, str(place)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        subprocess.run([*install, f"flyte=={SDK}"], check=True)
        plugin = f"flyteplugins-{'pytorch' if own else library}=={SDK}"
        subprocess.run([*install, *(["--no-deps"] if own else []), plugin], check=True)
        (place / "complete").touch()
    return python


@pytest.mark.parametrize("library", ["ray", "dask", "spark", "torch"])
def test_a_task_computes_with_its_library(library: str, tmp_path: Path) -> None:
    """As much at once as it asks for, on this machine; and nothing of it is left when it has ended."""
    python = interpreter(library)
    with Backend({**SETTINGS, "execution.python": str(python)}, directory=tmp_path / "data") as backend:
        backend.create_project("libraries")
        client = Client(backend, tmp_path / "home", "libraries")
        done = subprocess.run(
            [str(python), "libraries.py", library],
            cwd=PROGRAMS,
            env=client.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        told = by_case(done.stdout).get(library)
        assert told is not None, done.stderr[-4000:]
        assert (told["phase"], told["outputs"]) == ("SUCCEEDED", [[0, 1, 4, 9]]), told["message"]
        of_the_task = [process for process in psutil.process_iter(["cwd"]) if told["run"] in (process.info["cwd"] or "")]
        assert of_the_task == []
