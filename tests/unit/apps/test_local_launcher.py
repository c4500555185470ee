"""Apps as processes, with a keeper that is slow to answer."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from flyte_unified.apps.local.launcher import LocalApps
from flyte_unified.apps.local.supervisor import Replica
from flyte_unified.apps.model import AppKey, Told
from flyte_unified.launchers.processes.launcher import ProcessLauncher
from flyte_unified.launchers.processes.pump import LogWriter, Stream
from flyte_unified.launchers.processes.work import ProcessWork, WorkEvent
from tests.unit.apps.machine import KEY, RULES, app
from tests.unit.manual_clock import ManualClock


class Keeper:
    """Has been told to start a process, and has not said yet that it did."""

    def __init__(self) -> None:
        self.works: list[ProcessWork] = []
        self.told = asyncio.Event()
        self.forgotten: list[str] = []
        self.looks = 0

    async def start(self) -> Sequence[WorkEvent]:
        return []

    async def version(self, interpreter: Path) -> tuple[int, int, int]:
        return sys.version_info[:3]

    async def launch(self, work: ProcessWork) -> None:
        work.directory.mkdir(parents=True)
        self.works.append(work)
        self.told.set()
        await asyncio.Event().wait()

    def running(self, id: str) -> bool:  # noqa: A002
        return bool(self.works)

    def root(self, id: str) -> int:  # noqa: A002
        self.looks += 1
        return os.getpid() if self.looks == 3 else 0

    def forget(self, id: str) -> None:  # noqa: A002
        self.forgotten.append(id)

    async def close(self) -> None:
        pass


def local_apps(keeper: Keeper, directory: Path) -> LocalApps:
    return LocalApps(
        processes=lambda heard: cast("ProcessLauncher", keeper),
        directory=directory,
        interpreter=Path(sys.executable),
        inherited={},
        reveal=cast("Any", None),
        images=None,
        endpoint="localhost:1",
        pattern=lambda project, domain: "",
        raw_data=str(directory / "raw"),
        log_limit=0,
        kill_grace=0,
        rules=RULES,
        clock=ManualClock(),
    )


async def observe(key: AppKey, deployment: str, told: Told) -> None:
    pass


async def test_a_process_that_may_have_begun_keeps_its_place(tmp_path: Path) -> None:
    """The server leaves in the middle of a launch: the next one takes the process over, in the directory that it runs in."""
    keeper = Keeper()
    apps = local_apps(keeper, tmp_path)
    await apps.start([], observe)
    apps.wanted(app("hello", least=1))
    await asyncio.wait_for(keeper.told.wait(), 10)
    await apps.close()
    assert keeper.works[0].directory.is_dir()
    assert keeper.forgotten == []


async def test_an_app_listens_when_it_does_so_itself(tmp_path: Path) -> None:
    """Another program may have taken its port before, and must not be asked in its place."""
    keeper = Keeper()
    apps = local_apps(keeper, tmp_path)
    await apps.start([], observe)
    apps.wanted(app("hello"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        upstream = await asyncio.wait_for(apps.listening(Replica(KEY, "", "", port, "")), 10)
    assert (upstream.port, keeper.looks) == (port, 3)
    await apps.close()


async def test_an_app_with_its_port_in_its_code_is_found_there(tmp_path: Path) -> None:
    """It was told another, since somebody else had that port; by the time that it listened they were gone."""
    keeper = Keeper()
    apps = local_apps(keeper, tmp_path)
    keeper.looks = 2
    with socket.create_server(("127.0.0.1", 0)) as server:
        hard = app("hello")
        hard.spec.container.ports.add(container_port=server.getsockname()[1])
        await apps.start([hard], observe)
        upstream = await asyncio.wait_for(apps.listening(Replica(KEY, "", "", 1, "")), 10)
        assert upstream.port == server.getsockname()[1]
    await apps.close()


class Starting(Keeper):
    """Its process speaks before anybody is told that it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.known = asyncio.Event()
        self.spoke = asyncio.Event()

    async def launch(self, work: ProcessWork) -> None:
        work.log.parent.mkdir(parents=True)
        self.works.append(work)
        self.say("early")
        self.told.set()
        await self.known.wait()

    def running(self, id: str) -> bool:  # noqa: A002
        return any(work.id == id for work in self.works)

    def say(self, line: str) -> None:
        with self.works[0].log.open("a") as log:
            log.write(f"{1:016d} o {line}\n")
        self.spoke.set()

    async def grown(self, id: str, offset: int) -> None:  # noqa: A002
        self.spoke.clear()
        await self.spoke.wait()


async def test_a_log_that_is_read_from_before_its_start_is_read_on(tmp_path: Path) -> None:
    """Who follows an app while a process begins hears all that it says, once."""
    keeper = Starting()
    apps = local_apps(keeper, tmp_path)
    await apps.start([], observe)
    apps.wanted(app("hello", least=1))
    said: list[str] = []
    async with asyncio.timeout(10), aclosing(apps.follow(app("hello").key, "")) as outputs:
        await keeper.told.wait()
        async for output in outputs:
            said += [line.text for line in output.lines]
            if said == ["early\n"] and not keeper.known.is_set():
                keeper.known.set()
                asyncio.get_running_loop().call_later(0.05, keeper.say, "late")
            elif "late\n" in said:
                break
    assert said == ["early\n", "late\n"]
    await apps.close()


@pytest.mark.parametrize(("limit", "lost"), [(32 << 20, False), (1 << 20, True)])
async def test_a_log_of_any_form_is_told_once(tmp_path: Path, limit: int, lost: bool) -> None:
    """Bytes that are no text, ten megabytes on one line, a last line without an end; of what had no room, that it had none."""
    keeper = Starting()
    apps = local_apps(keeper, tmp_path)
    log = tmp_path / "logs" / "/".join(KEY) / "hello-1.log"
    log.parent.mkdir(parents=True)
    writer = LogWriter(str(log), limit=limit)
    stream = Stream(b"o", writer)
    for piece in (b"\xff\0\n", *[b"0123456789" * 5000] * 200, b"\nlast"):
        stream.feed(piece)
    stream.flush(goes_on=False)
    writer.close()
    await apps.start([app("hello", least=1)], observe)
    async with aclosing(apps.follow(KEY, "hello-1")) as outputs:
        batches = [output.lines async for output in outputs]
    await apps.close()
    told = "".join(line.text for batch in batches for line in batch if not line.system)
    assert (told == "\ufffd\0\n" + "0123456789" * 1_000_000 + "\nlast\n") is not lost
    assert told.startswith("\ufffd\0\n0123") and told.endswith("6789\nlast\n")
    assert len(told) <= limit
    assert max(sum(len(line.text) for line in batch) for batch in batches) <= 256 << 10
    notices = [line.text for batch in batches for line in batch if line.system]
    assert ["were dropped here" in notice for notice in notices] == [True] * lost
