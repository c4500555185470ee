"""The program that builds, run as the server runs it: what it makes, what it uses again, and what is left when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from flyteidl2.core import execution_pb2, security_pb2

from flyte_unified.core.images import variable
from flyte_unified.launchers.processes import mounts
from tests.unit.images.workbench import RUN, Workbench, slow_index, wheel

TOKEN = security_pb2.Secret(key="token", env_var="TOKEN", mount_requirement=security_pb2.Secret.ENV_VAR)
CERTIFICATE = security_pb2.Secret(key="certificate", mount_requirement=security_pb2.Secret.FILE)
COMMANDS = ("--allow-commands",)

needs_namespaces = pytest.mark.skipif(
    subprocess.run([sys.executable, mounts.__file__, "/etc/flyte/secrets"], capture_output=True, check=False).returncode != 0,
    reason="this kernel gives no mount namespaces",
)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def test_an_environment_has_what_the_layers_say(bench: Workbench) -> None:
    """Packages, variables in their order and files; the log tells uv's words, and the address is the image's."""
    built = bench.build(
        bench.packages("snowdrop==1.0"),
        {"env": {"env_variables": {"COLOUR": "white"}}},
        {"copy_config": {"src": "notes.txt", "dst": "in/"}},
        name="localhost:5000/acme/snow:1",
        files={"notes.txt": "cold"},
    )
    assert (built.code, built.uri) == (0, "local/snow:1"), built.log
    assert "+ snowdrop==1.0" in built.log
    assert bench.says("import snowdrop; print(snowdrop.VERSION)") == "1.0"
    found = bench.named()
    assert (found.variables, found.run) == ([("COLOUR", "white")], RUN)
    assert (found.files / "in" / "notes.txt").read_text() == "cold"


def test_the_same_content_is_built_once(bench: Workbench) -> None:
    """Under whatever name; other files are other content, and --force builds anew beside what may be in use."""
    layers = [bench.packages("snowdrop"), {"copy_config": {"src": "a", "dst": "."}}]
    bench.build(*layers, files={"a": "1"})
    first = bench.named()
    again = bench.build(*layers, files={"a": "1"}, name="other:1")
    assert bench.named("other:1") == first
    assert f"built by the run {RUN}" in again.log
    assert "uv pip install" not in again.log
    bench.build(*layers, files={"a": "2"}, name="other:2")
    assert bench.named("other:2").key != first.key
    bench.build(*layers, files={"a": "1"}, options=["--force"])
    forced = bench.named()
    assert forced.key == first.key
    assert forced.path != first.path
    assert first.python.exists()


def from_index(url: str) -> dict[str, Any]:
    return {"pip_packages": {"packages": ["snowdrop"], "options": {"index_url": url}}}


def test_what_a_killed_build_leaves_is_never_used(bench: Workbench) -> None:
    """kill -9 in the middle: no image by that name, and the next build succeeds and takes the rest away."""
    with slow_index(bench.wheels) as (index, asked, allowed):
        layer = from_index(index)
        _, process = bench.start(bench.packages(), layer)
        assert asked.wait(30)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert bench.environments.named("snow:1") is None
        (half,) = (bench.images / "environments").iterdir()
        allowed.set()
        assert bench.build(bench.packages(), layer).code == 0
    assert not half.exists()
    assert bench.says("import snowdrop; print(snowdrop.VERSION)") == "2.0"


def test_two_builds_of_one_content_are_one(bench: Workbench) -> None:
    """The second says that it waits, then uses what the first has made."""
    with slow_index(bench.wheels) as (index, asked, allowed):
        layer = from_index(index)
        one = bench.start(bench.packages(), layer)
        assert asked.wait(30)
        two = bench.start(bench.packages(), layer, name="other:1")
        assert two[1].stdout is not None
        assert "another build of the same image is under way" in two[1].stdout.readline()
        allowed.set()
        ended = [bench.end(*one), bench.end(*two)]
    assert [each.code for each in ended] == [0, 0]
    assert bench.named("other:1") == bench.named()


def test_what_uv_says_of_a_failure_is_the_error(bench: Workbench) -> None:
    """The user's, and nothing that another attempt would mend; nothing is left of it."""
    built = bench.build(bench.packages("snowdrop==3.0"))
    assert built.error is not None
    assert (built.code, built.error.code, built.error.origin) == (1, "ImageBuildFailed", execution_pb2.ExecutionError.USER)
    assert built.error.kind == execution_pb2.ContainerError.NON_RECOVERABLE
    assert "snowdrop==3.0" in built.error.message
    assert list((bench.images / "environments").iterdir()) == []


def test_packages_of_the_system_are_the_machines(bench: Workbench) -> None:
    """What it has is enough; what it lacks is named, with the command that brings it."""
    assert bench.build(bench.packages(), {"apt_packages": {"packages": ["sh", "ca-certificates"]}}).code == 0
    built = bench.build(bench.packages(), {"apt_packages": {"packages": ["sh", "no-such-thing=1"]}})
    assert built.error is not None
    assert "sudo apt-get install no-such-thing " in built.error.message


def test_a_version_of_python_that_nobody_has(bench: Workbench) -> None:
    """The error names it, and one that is here."""
    built = bench.build(python="3.99")
    assert built.error is not None
    assert "Python 3.99" in built.error.message
    assert f"python_version=({sys.version_info[0]}, {sys.version_info[1]})" in built.error.message


def test_the_very_wheel_is_installed(bench: Workbench) -> None:
    """The one that the client sent, with whatever options beside."""
    options = {"extra_args": "--no-index"}
    sent = bench.directory / "dist"
    wheel(sent, "snowdrop", "1.5", {"snowdrop.py": "VERSION = 'mine'\n"})
    layer = {"python_wheels": {"dir": str(sent.relative_to(bench.directory)), "package_name": "snowdrop", "options": options}}
    files = {str(path.relative_to(bench.directory)): path.read_bytes() for path in sent.iterdir()}
    assert bench.build(bench.packages(), layer, files=files).code == 0
    assert bench.says("import snowdrop; print(snowdrop.VERSION)") == "mine"


def test_a_secret_of_a_layer_is_a_variable(bench: Workbench) -> None:
    """Its program has it; the log and the error have not."""
    given = {variable(TOKEN): "s3cr3t"}
    layer = {"commands": {"cmd": ["test ${#TOKEN} = 6 && env | grep -c _FLYTE_BUILD_; false"], "secret_mounts": [TOKEN]}}
    built = bench.build(bench.packages(), layer, options=COMMANDS, environ=given)
    assert built.error is not None
    assert built.error.message.endswith("\n0")
    assert "s3cr3t" not in built.log
    without = bench.build(bench.packages(), layer, options=COMMANDS)
    assert without.error is not None
    assert "'token'" in without.error.message


def test_a_package_is_fetched_with_a_secret(bench: Workbench) -> None:
    """Its requirement refers to the variable, and no command line ever shows it."""
    (found,) = bench.wheels.glob("snowdrop-1*")
    layer = {"pip_packages": {"packages": [f"snowdrop @ file://$TOKEN/{found.name}"], "secret_mounts": [TOKEN]}}
    built = bench.build(bench.packages(), layer, environ={variable(TOKEN): str(found.parent)})
    assert built.code == 0, built.log
    assert f"file://***/{found.name}" in built.log
    assert bench.says("import snowdrop; print(snowdrop.VERSION)") == "1.0"


@pytest.mark.parametrize("where", ["index_url", "extra_args", "packages"])
def test_a_password_in_an_address_is_nobody_elses(bench: Workbench, where: str) -> None:
    """An index may want one. No command line shows it while uv runs, and no log afterwards."""
    with slow_index(bench.wheels, login="kim:s3cr3t") as (index, asked, allowed):
        if where == "packages":
            layer = {"packages": [f"snowdrop @ {index.removesuffix('simple')}snowdrop-2.0-py3-none-any.whl"]}
        else:
            options = {"index_url": index} if where == "index_url" else {"extra_args": f"-q --default-index={index}"}
            layer = {"packages": ["snowdrop"], "options": options}
        place, process = bench.start(bench.packages(), {"pip_packages": layer})
        assert asked.wait(30)
        below = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        lines = [" ".join(each.cmdline()) for each in below]
        allowed.set()
        built = bench.end(place, process)
    assert built.code == 0, built.log
    assert [line for line in lines if "pip install" in line] != []
    assert "s3cr3t" not in "\n".join(lines)
    assert "s3cr3t" not in built.log
    assert f"***@{index.rpartition('@')[2]}" in built.log or where == "packages"


@needs_namespaces
def test_a_secret_of_a_layer_is_a_file(bench: Workbench) -> None:
    """In the directory where the SDK says that it is, for the program of that layer alone."""
    layer = {"commands": {"cmd": ["cp /etc/flyte/secrets/certificate kept"], "secret_mounts": [CERTIFICATE]}}
    built = bench.build(bench.packages(), layer, options=COMMANDS, environ={variable(CERTIFICATE): "sealed"})
    assert built.code == 0, built.log
    assert (bench.named().files / "kept").read_text() == "sealed"


def test_an_image_without_the_sdk_gets_ours(bench: Workbench) -> None:
    """A task could not start without: the version is that of tasks without an image."""
    assert bench.build(bench.packages()).code == 0
    usual = [f"--python={bench.named().python}"]
    index = {"UV_FIND_LINKS": str(bench.wheels), "UV_NO_INDEX": "1"}
    wheel(bench.wheels, "flyte", "9.10", {})
    assert bench.build({"env": {}}, name="bare:1", options=usual, environ=index).code == 0
    assert bench.says("from importlib.metadata import version; print(version('flyte'))", name="bare:1") == "9.9"
