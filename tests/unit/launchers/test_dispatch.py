"""Several launchers as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flyteidl2.connector import connector_pb2
from structlog.testing import capture_logs

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.launchers.api import Attempt, Ended, Event, Started, WorkId
from flyte_unified.launchers.dispatch import Launchers
from flyte_unified.plugins.api import Exit, Job, Pod, Process, Resource, Resources

RUN = RunKey("p", "development", "r1")


def work(name: str) -> WorkId:
    return WorkId(RUN.action(name), 1)


class Recorder:
    """The launcher port: what was asked, and what the test makes it tell."""

    def __init__(self, *found: Event) -> None:
        self.found = list(found)
        self.asked: list[tuple[Any, ...]] = []
        self.tell: Callable[[Event], None] = lambda _: None

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        self.tell = on_event
        return self.found

    async def launch(self, attempt: Attempt) -> None:
        self.asked.append(("launch", attempt.id))

    async def kill(self, work: WorkId, *, grace: float) -> None:
        self.asked.append(("kill", work, grace))

    async def forget(self, work: WorkId) -> None:
        self.asked.append(("forget", work))

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        self.asked.append(("clear", action, attempts))

    async def stop(self, *, grace: float) -> None:
        self.asked.append(("stop", grace))

    async def close(self) -> None:
        self.asked.append(("close",))


POD = Pod(manifest={}, primary="main")
JOB = Job(connectors=("c:1",), request=connector_pb2.CreateTaskRequest(), input_uri="")
PROCESS = Process(arguments=("a",), environment={}, system={}, resources=Resources())


async def test_each_kind_of_work_has_its_launcher() -> None:
    """What was launched somewhere is killed and forgotten there, and no one else is asked."""
    pods, jobs = Recorder(), Recorder()
    launchers = Launchers({Pod: pods, Job: jobs})
    assert await launchers.start(lambda _: None) == []
    await launchers.launch(Attempt(id=work("a"), work=POD))
    await launchers.launch(Attempt(id=work("b"), work=JOB))
    await launchers.kill(work("b"), grace=2.0)
    await launchers.forget(work("a"))
    assert pods.asked == [("launch", work("a")), ("forget", work("a"))]
    assert jobs.asked == [("launch", work("b")), ("kill", work("b"), 2.0)]


async def test_work_that_nobody_launches() -> None:
    """Is a mistake of ours, and says so."""
    with pytest.raises(TypeError, match="nothing here launches a Process"):
        await Launchers({Pod: Recorder()}).launch(Attempt(id=work("a"), work=PROCESS))


async def test_what_was_found_belongs_to_its_finder() -> None:
    """At the start and later; what nobody knows is asked of all."""
    pods, resources = Recorder(Started(id=work("a"), at=Micros(1))), Recorder()
    launchers = Launchers({Pod: pods, Resource: resources})
    told: list[Event] = []
    assert await launchers.start(told.append) == pods.found
    late = Ended(id=work("b"), at=Micros(2), exit=Exit())
    resources.tell(late)
    assert told == [late]
    for name in "abc":
        await launchers.forget(work(name))
    assert [asked for _, asked in pods.asked] == [work("a"), work("c")]
    assert [asked for _, asked in resources.asked] == [work("b"), work("c")]


async def test_all_are_stopped_cleared_and_closed() -> None:
    """Each once, also one that has two kinds of work."""
    both, pods = Recorder(), Recorder()
    launchers = Launchers({Job: both, Resource: both, Pod: pods})
    await launchers.clear(RUN.action("a"), attempts=2)
    await launchers.stop(grace=3.0)
    await launchers.close()
    assert both.asked == pods.asked == [("clear", RUN.action("a"), 2), ("stop", 3.0), ("close",)]


async def test_all_are_closed_though_one_fails_to() -> None:
    """That is told, and keeps nothing else from closing."""

    class Stuck(Recorder):
        async def close(self) -> None:
            raise OSError("no")

    jobs = Recorder()
    with capture_logs() as logs:
        await Launchers({Pod: Stuck(), Job: jobs}).close()
    assert jobs.asked == [("close",)]
    assert [log["launcher"] for log in logs] == ["Stuck"]
