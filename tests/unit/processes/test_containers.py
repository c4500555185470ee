"""What podman and docker are told, by programs that stand in for them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import structlog

from flyte_unified.dataside import HANDED, NOTE
from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.containers import Contained, Containers
from flyte_unified.plugins.api import Container, Resources

PODMAN = '{"host": {"cgroupControllers": ["memory", "pids"]}}'


class Engine:
    """A program in a directory of its own, which answers and writes down what it was told."""

    def __init__(self, directory: Path, name: str, *, answer: str = PODMAN, code: int = 0) -> None:
        directory.mkdir(exist_ok=True)
        self.path, self._told, self.complaint = directory / name, directory / "told", directory / "complaint"
        self.path.write_text(
            f'#!/bin/sh\necho "$@" >> {self._told}\nif [ "$1" = rm ] && cat {self.complaint} >&2; then exit 1; fi\n'
            f"echo '{answer}'\necho 'no daemon' >&2\nexit {code}\n"
        )
        self.path.chmod(0o755)
        self.environment = {"PATH": str(directory)}

    def told(self) -> list[str]:
        return self._told.read_text().splitlines()


async def prepared(engine: Engine, directory: Path, *, gpus: tuple[int, ...] = (), **work: object) -> Contained:
    facts = {"arguments": ("go",), "environment": {}, "system": {}, "resources": Resources(), "image": "img", "outputs": "/out"}
    files = {"token": b"hush"} if work.pop("files", False) else {}
    return await Containers(engine="", left=directory / "left").prepare(
        Container(**{**facts, **work}),  # type: ignore[arg-type]  # fields of Container
        directory / "work",
        gpus=gpus,
        secrets={"TOKEN": "hush", "DOCKER_PASSWORD": "hush"},
        files=files,
        environment=engine.environment,
    )


def words(contained: Contained) -> tuple[str, ...]:
    """The engine's own."""
    return contained.command[contained.command.index("--") + 1 :]


async def test_the_engine_is_told_all_but_values(tmp_path: Path) -> None:
    """Variables go by its environment, where no list of processes shows them, but for those that it reads itself."""
    engine = Engine(tmp_path / "bin", "podman")
    work = await prepared(engine, tmp_path, environment={"A": "a\nb", "PATH": "/mine"}, inputs="/in", entrypoint="sh")
    told = words(work)
    assert told[-2:] == ("img", "go")
    assert {"--env=A", "--env=TOKEN", "--env=PATH=/mine", "--entrypoint=sh"} <= set(told)
    assert {f"--volume={tmp_path}/work/inputs:/in", f"--volume={tmp_path}/work/outputs:/out"} <= set(told)
    assert work.variables == {f"{HANDED}A": "a\nb", f"{HANDED}TOKEN": "hush", f"{HANDED}DOCKER_PASSWORD": "hush"}
    assert "hush" not in " ".join(work.command)


async def test_limits_are_those_that_the_engine_can_keep(tmp_path: Path) -> None:
    """Memory that podman can't keep is watched by us; docker keeps everything."""
    asked = Resources(memory_limit=64 << 20, cpu_limit=1.5)
    able = await prepared(Engine(tmp_path / "a", "podman"), tmp_path, resources=asked)
    assert "--memory=67108864" in words(able) and able.memory_limit is None
    assert not any(word.startswith("--cpus") for word in words(able))
    poor = await prepared(Engine(tmp_path / "b", "podman", answer='{"host": {}}'), tmp_path, resources=asked)
    assert not any(word.startswith("--memory") for word in words(poor)) and poor.memory_limit == (64 + 128) << 20
    docker = await prepared(Engine(tmp_path / "c", "docker", answer="28.0"), tmp_path, resources=asked, gpus=(0, 2))
    assert {"--memory=67108864", "--cpus=1.5", '--gpus="device=0,2"'} <= set(words(docker))


async def test_secrets_as_files_are_in_memory_until_the_container_is_removed(tmp_path: Path) -> None:
    """In a directory that nobody else may enter; removing says the container's name to its engine."""
    if not os.access("/dev/shm", os.W_OK) and not os.environ.get("XDG_RUNTIME_DIR"):
        pytest.skip("this machine has no directory in memory")
    engine = Engine(tmp_path / "bin", "podman")
    work = await prepared(engine, tmp_path, files=True)
    note = json.loads((tmp_path / "work" / NOTE).read_text())
    private = Path(note["private"])
    assert (private / "token").read_text() == "hush"
    assert private.parent.stat().st_mode & 0o777 == 0o700
    assert f"--volume={private}:/etc/flyte/secrets:ro" in words(work)
    containers = Containers(engine="", left=tmp_path / "left")
    await containers.remove(tmp_path / "work")
    assert engine.told()[-1] == f"rm --force {note['name']}"
    assert not private.exists()
    told = len(engine.told())
    await containers.remove(tmp_path / "work")  # and of an attempt that had none
    assert len(engine.told()) == told


async def test_a_container_that_could_not_be_removed_is_not_forgotten(tmp_path: Path) -> None:
    """Its attempt's directory may go; the next container, or the next server, tries again, until the engine has it no more."""
    engine = Engine(tmp_path / "bin", "podman")
    await prepared(engine, tmp_path)
    engine.complaint.write_text("Cannot connect to the daemon")
    containers = Containers(engine="", left=tmp_path / "left")
    with structlog.testing.capture_logs() as log:
        await containers.remove(tmp_path / "work")
    assert [each["error"] for each in log] == ["Cannot connect to the daemon"]
    shutil.rmtree(tmp_path / "work")
    (kept,) = (tmp_path / "left").iterdir()
    removal = f"rm --force {json.loads(kept.read_text())['name']}"
    assert engine.told()[-1] == removal
    await prepared(engine, tmp_path)
    assert engine.told()[-1] == removal and kept.exists()
    engine.complaint.write_text("Error: No such container: flyte-1")
    await containers.sweep()
    assert engine.told()[-1] == removal and not kept.exists()
    told = len(engine.told())
    await containers.sweep()
    assert len(engine.told()) == told


async def test_without_an_engine_that_answers_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    """What is there and does not work is told with its own words."""
    engine = Engine(tmp_path / "bin", "docker", code=1)
    with pytest.raises(Unlaunchable) as error:
        await prepared(engine, tmp_path)
    assert error.value.reason == "NoContainerEngine"
    assert "podman is not installed; docker does not work (no daemon); install podman" in error.value.message


@pytest.mark.parametrize("half", ["", '{"engine": "/usr/bin/po'])
async def test_a_note_that_was_cut_off_is_none(tmp_path: Path, half: str) -> None:
    """Its writer died before there was a container, and the action must not be stuck for it."""
    (tmp_path / NOTE).write_text(half)
    await Containers(engine="", left=tmp_path / "left").remove(tmp_path)
    assert not (tmp_path / NOTE).exists()
