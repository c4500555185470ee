"""Images with layers through the SDK's remote builder: virtual environments, in which their tasks run."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sdk.conftest import PROGRAMS, Client
from tests.unit.images.workbench import slow_index, snowdrops


@pytest.fixture(scope="module")
def user(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Somebody with a project of their own, so that its runs can be counted."""
    client.backend.create_project("imaged")
    return Client(client.backend, tmp_path_factory.mktemp("imaged") / "home", "imaged", forks=client.forks)


@pytest.fixture(scope="module")
def place(user: Client) -> Path:
    """The program, with what it needs beside it."""
    shutil.copy(PROGRAMS / "imaged.py", user.home)
    (user.home / "notes.txt").write_text("cold")
    snowdrops(user.home / "wheels")
    return user.home


def builds(user: Client) -> list[str]:
    """The runs that built images, the last one last."""
    return list(dict.fromkeys(re.findall(r"\br[0-9a-z]{19}\b", user.flyte("get", "run", "--task-name", "build-image"))))


def told(user: Client, output: str) -> list[str]:
    """What the task of the run that ``output`` shows returned, word by word."""
    found = re.search(r"runs/(r\w+)", output.rpartition("Created Run")[2])
    assert found, output
    shown = re.search(r'o0="(.*)"', user.flyte("get", "io", found[1]))
    assert shown, output
    return shown[1].split()


@pytest.fixture(scope="module")
def first(user: Client, place: Path) -> list[str]:
    """What a task says that ran in a new image: its child's words, then its own."""
    return told(user, user.flyte("run", "--follow", "imaged.py", "main", cwd=place))


def test_a_task_runs_in_its_image(first: list[str]) -> None:
    """With its packages, its variables and its files, and with the client's version of the SDK; its children too."""
    version, childs, own, shade, notes, sdk = first
    assert (version, shade, notes, sdk) == ("1.0", "off-white", "cold", importlib.metadata.version("flyte"))
    assert childs == own != Path(sys.prefix).name


def test_a_build_is_a_run_with_a_log(user: Client, first: list[str]) -> None:
    """uv's words are in it, and the environment's place."""
    (build,) = builds(user)
    log = user.flyte("get", "logs", build)
    assert "+ snowdrop==1.0" in log
    assert first[2] in log.replace("\n", "")


def test_an_image_is_built_once(user: Client, place: Path, first: list[str]) -> None:
    """Later runs, builds and deployments find it; its tasks start from a process of its own, with the imports behind it."""
    for _ in range(2):
        again = told(user, user.flyte("run", "--follow", "imaged.py", "main", cwd=place))
        assert again == first
    assert "local/snow:" in user.flyte("build", "imaged.py", "snow", cwd=place)
    user.flyte("deploy", "--version", "v1", "imaged.py", "snow", cwd=place)
    assert told(user, user.flyte("run", "--follow", "deployed-task", "snow.main", cwd=place)) == first
    assert len(builds(user)) == 1
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if command and first[2] in command[0] and "forkserver.py" in command[1]]


def test_force_builds_anew(user: Client, place: Path, first: list[str]) -> None:
    """In another environment, which tasks run in from then on."""
    assert "local/snow:" in user.python(str(place / "imaged.py")).stdout
    version, _, own, *_ = told(user, user.flyte("run", "--follow", "imaged.py", "main", cwd=place))
    assert version == "1.0"
    assert own != first[2]
    assert own.partition("-")[0] == first[2].partition("-")[0]


def test_what_is_lacking_belongs_into_the_image(user: Client, place: Path) -> None:
    """The error of a task that finds no module says which image it ran in."""
    output = user.flyte("run", "--follow", "imaged.py", "lacking", cwd=place)
    found = re.search(r"runs/(r\w+)", output.rpartition("Created Run")[2])
    assert found, output
    shown = re.sub(r"\x1b\[[0-9;]*m|[\s│]", "", user.flyte("get", "action", found[1], "a0"))
    assert re.search(r"intheimagelocal/snow:\w+\.Addwhatitneeds", shown)


def test_a_package_is_fetched_with_a_secret(user: Client, place: Path) -> None:
    """Known to the build, and not to the tasks that run in the image."""
    user.flyte("create", "secret", "place", "--value", str(place / "wheels"))
    assert told(user, user.flyte("run", "--follow", "imaged.py", "fetched", cwd=place)) == ["2.0", "None"]
    assert str(place / "wheels") not in user.flyte("get", "logs", builds(user)[-1])


def test_an_image_of_somebody_else_is_a_name(user: Client, place: Path) -> None:
    """Its tasks run where tasks without an image do, and the log of the run says so."""
    output = user.flyte("run", "--follow", "imaged.py", "elsewhere", cwd=place)
    assert told(user, output) == [Path(sys.prefix).name]
    assert "ghcr.io/acme/tool:7 is not used on this machine" in output


def test_what_would_change_the_machine_is_refused(user: Client, place: Path) -> None:
    """The client fails, and the build's error names the setting."""
    user.flyte("run", "imaged.py", "never", cwd=place, fails=True)
    assert "images.allow_commands" in user.flyte("get", "action", builds(user)[-1], "a0")


def test_a_build_is_aborted(user: Client, place: Path) -> None:
    """As any run is; nothing of it is left running."""
    with slow_index(place / "wheels") as (index, asked, _):
        (place / "index").write_text(index)
        command = [str(Path(sys.executable).parent / "flyte"), "build", "imaged.py", "endless"]
        with subprocess.Popen(command, cwd=place, env=user.environment, stdout=subprocess.DEVNULL) as flyte:
            assert asked.wait(60)
            user.flyte("abort", "run", builds(user)[-1])
            flyte.communicate(timeout=60)
    assert flyte.returncode != 0
    assert "'ACTION_PHASE_ABORTED'" in user.flyte("get", "action", builds(user)[-1], "a0")
