"""How code reaches a task, and which Python runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.conftest import Client, calls

UPLOADS = "DataProxyService/CreateUploadLocation"


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """Another virtual environment, with the SDK of ours."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + os.linesep)
    return tmp_path / "venv" / "bin" / "python"


def test_a_bundle_is_uploaded_once(newcomer: Client) -> None:
    """The SDK remembers where a bundle is, and a later program of the same code uploads nothing."""
    before = calls(newcomer, UPLOADS)
    assert newcomer.say("small", "plain")["greeting"]["phase"] == "SUCCEEDED"
    assert calls(newcomer, UPLOADS) == before + 1
    again = newcomer.python("small.py", "plain")
    assert "Code bundle found in cache" in again.stdout + again.stderr
    assert calls(newcomer, UPLOADS) == before + 1


def test_a_notebook_sends_the_function_itself(newcomer: Client) -> None:
    """In interactive mode the task travels as a pickle."""
    (greeting,) = newcomer.say("small", "interactive")["greeting"]["outputs"]
    assert greeting == f"hello you from {sys.prefix}"


def test_a_lost_bundle_says_what_to_do(newcomer: Client, flyte_backend_settings: dict[str, Any]) -> None:
    """A bundle that is gone fails the run at once, naming the command after which it works again."""
    assert newcomer.say("small", "plain")["greeting"]["phase"] == "SUCCEEDED"
    shutil.rmtree(Path(flyte_backend_settings["storage.bundles"]) / newcomer.project)
    failed = newcomer.python("small.py", "plain")
    assert failed.returncode != 0
    assert "flyte delete local-cache" in failed.stdout + failed.stderr
    newcomer.flyte("delete", "local-cache")
    assert newcomer.python("small.py", "plain").returncode == 0


def test_a_run_chooses_its_python(newcomer: Client, other_python: Path) -> None:
    """FLYTE_UNIFIED_PYTHON leads to another interpreter; events and errors name that one."""
    said = newcomer.say("small", "plain", f"FLYTE_UNIFIED_PYTHON={other_python}")
    assert said["greeting"]["outputs"] == [f"hello you from {other_python.parent.parent}"]
    assert said["greeting"]["attempts"][0]["events"][0].endswith(f"started on {other_python}")
    assert f"This task ran in {other_python}." in said["missing"]["message"]


def test_a_python_without_the_sdk_is_an_error_at_once(newcomer: Client, tmp_path: Path) -> None:
    """What to type there is told, without a traceback and without another try."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    said = newcomer.say("small", "plain", f"FLYTE_UNIFIED_PYTHON={bare}")["greeting"]
    assert (said["phase"], said["code"], len(said["attempts"])) == ("FAILED", "MissingLibrary", 1)
    assert f"{bare} has none: uv pip install --python {bare} flyte" in said["message"]
