"""TrackedRunService on a real ledger: what clients say of runs of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.common import identifier_pb2, list_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow import tracked_run_service_pb2 as idl
from google.rpc import status_pb2

from flyte_unified.core.clock import SECOND, Micros, timestamp
from flyte_unified.core.errors import Aborted, AlreadyExists, Code, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.api import tracked_base
from flyte_unified.dataproxy.downloads import Downloads
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action, Everything, Ledger
from flyte_unified.runs.details import Reader
from flyte_unified.tracked.handlers import TrackedRunsHandlers
from flyte_unified.tracked.service import TrackedRuns
from flyte_unified.tracked.silence import Silence
from tests.unit.runs.world import ORG, World, context, inputs, task_spec, world_in
from tests.unit.triggers.world import InlineDatabase
from tests.virtual_time import LoopClock

RUN = RunKey("p", "development", "local-1")
A0 = RUN.action("a0")
RUNNING, SUCCEEDED, FAILED, ABORTED = Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED


@dataclass
class Client:
    """What an SDK sends. Versions count up by themselves."""

    world: World
    handlers: TrackedRunsHandlers

    async def create(self, name: str = RUN.run, **fields: Any) -> run_definition_pb2.Run:
        message = idl.CreateTrackedRunRequest(**{"task_spec": task_spec(), **fields})
        message.run_id.CopyFrom(RunKey("p", "development", name).idl(ORG))
        return (await self.handlers.create_run(message, context("ann"))).run

    def update(self, name: str, phase: Phase, version: int, *, attempt: int = 1, **fields: Any) -> idl.TrackedActionUpdate:
        event = run_definition_pb2.ActionEvent(
            id=RUN.action(name).idl(ORG),
            attempt=attempt,
            phase=int(phase),
            version=version,
            error_info={"message": "it broke", "kind": "KIND_USER"} if phase is FAILED else None,
            outputs=fields.pop("outputs", None),
        )
        event.updated_time.CopyFrom(timestamp(self.world.clock.now()))
        return idl.TrackedActionUpdate(event=event, **fields)

    def child(self, name: str, parent: str = "a0", **fields: Any) -> idl.TrackedActionUpdate:
        """The first report of a task."""
        task = run_definition_pb2.TaskAction(spec=task_spec("env.child"))
        return self.update(name, RUNNING, 0, parent_name=parent, task=task, **fields)

    async def report(self, *updates: idl.TrackedActionUpdate, run: RunKey = RUN) -> list[status_pb2.Status]:
        message = idl.ReportTrackedActionsRequest(run_id=run.idl(ORG), updates=updates)
        return list((await self.handlers.report_actions(message, context("ann"))).statuses)

    async def told(self, *updates: idl.TrackedActionUpdate) -> None:
        """Reports that are fine."""
        statuses = await self.report(*updates)
        assert [status.code for status in statuses] == [0] * len(updates), statuses

    async def details(self, name: str = "a0") -> run_definition_pb2.ActionDetails:
        request = run_service_pb2.GetActionDetailsRequest(action_id=RUN.action(name).idl(ORG))
        return (await self.handlers.get_action_details(request, context())).details


@pytest.fixture
async def client(tmp_path: Path, database: Database) -> AsyncIterator[Client]:
    async with world_in(tmp_path, database) as world:

        async def require_project(project: str, domain: str) -> None:
            if project != "p":
                raise NotFound(f"there is no project {project!r}")

        tracked = TrackedRuns(
            ledger=world.ledger,
            specs=world.specs,
            clock=world.clock,
            require_project=require_project,
            owns=world.data.owns,
            base=world.base,
        )
        reader = Reader(ledger=world.ledger, data=world.data)
        yield Client(world, TrackedRunsHandlers(ledger=world.ledger, reader=reader, tracked=tracked))


async def test_a_run_from_its_beginning_to_its_end(client: Client) -> None:
    """It begins when its client says, has the request's labels over the spec's, and shows what was told of each action."""
    spec = run_pb2.RunSpec(labels={"values": {"team": "red", "kept": "yes"}})
    run = await client.create(run_spec=spec, labels={"team": "blue"}, run_start_time=timestamp(1_600_000_000 * SECOND))
    assert (run.action.status.phase, dict(run.labels)) == (Phase.QUEUED, {"team": "blue", "kept": "yes"})
    assert run.action.metadata.source == run_definition_pb2.RUN_SOURCE_TRACKED
    assert run.action.status.start_time.seconds == 1_600_000_000

    trace = run_definition_pb2.TraceAction(name="fetch", spec={"interface": {}})
    await client.told(
        client.update("a0", RUNNING, 0),
        client.child("b", group="pair"),
        client.update("t", RUNNING, 0, parent_name="b", trace=trace),
        client.update("t", SUCCEEDED, 1),
        client.update("b", FAILED, 1),
        client.update("a0", SUCCEEDED, 1, outputs={"output_uri": f"{client.world.base}/o/outputs.pb"}),
    )

    request = run_service_pb2.ListActionsRequest(run_id=RUN.idl(ORG))
    listed = (await client.handlers.list_actions(request, context())).actions
    shown = [(a.id.name, a.metadata.parent, a.metadata.group, a.metadata.WhichOneof("spec"), a.status.phase) for a in listed]
    assert shown == [
        ("a0", "", "", "task", SUCCEEDED),
        ("b", "a0", "pair", "task", FAILED),
        ("t", "b", "", "trace", SUCCEEDED),
    ]
    broken = await client.details("b")
    assert (broken.error_info.message, broken.metadata.task.id.name) == ("it broke", "env.child")
    request = run_service_pb2.GetRunDetailsRequest(run_id=RUN.idl(ORG))
    whole = (await client.handlers.get_run_details(request, context())).details
    assert whole.action.attempts[0].outputs.output_uri.endswith("/o/outputs.pb")
    assert whole.run_spec.labels.values["team"] == "blue"


async def test_reports_may_be_repeated_and_late(client: Client) -> None:
    """What was told already is acknowledged, and changes nothing; the order of versions counts, not that of arrival."""
    await client.create()
    batch = [client.update("a0", RUNNING, 0), client.child("b"), client.update("b", SUCCEEDED, 2)]
    await client.told(*batch)
    before = [await client.world.ledger.action(RUN.action(name)) for name in ("a0", "b")]
    await client.told(*batch, client.update("b", RUNNING, 1))
    assert [await client.world.ledger.action(RUN.action(name)) for name in ("a0", "b")] == before


async def test_a_later_attempt_opens_what_failed(client: Client) -> None:
    """A client says of a failed attempt what it says of a failed action; the attempts are all shown."""
    await client.create()
    await client.told(client.child("b"), client.update("b", FAILED, 1))
    assert (await client.details("b")).status.phase == FAILED
    await client.told(
        client.update("b", RUNNING, 0, attempt=2),
        client.update("b", RUNNING, 0, attempt=4),
        client.update("b", FAILED, 7),
        client.update("b", SUCCEEDED, 1, attempt=4),
    )
    details = await client.details("b")
    attempts = [(attempt.attempt, attempt.phase, attempt.error_info.message) for attempt in details.attempts]
    unsaid = "the attempt ended, and nothing was reported of why"
    assert attempts == [(1, FAILED, "it broke"), (2, FAILED, unsaid), (4, SUCCEEDED, "")]
    assert (details.status.phase, details.status.attempts) == (SUCCEEDED, 4)


async def test_bad_reports_are_told_one_by_one(client: Client) -> None:
    """Each in its own status, in words; the good ones beside them count."""
    await client.create()
    await client.told(client.child("done"), client.update("done", SUCCEEDED, 1))
    foreign = client.update("a0", RUNNING, 0)
    foreign.event.id.run.name = "local-2"
    bare = client.update("x", RUNNING, 0, parent_name="a0")
    stray = client.update("a0", RUNNING, 0, outputs={"output_uri": "/etc/passwd"})
    bad = [
        (client.child("x", "nobody"), Code.NOT_FOUND, "has no action 'nobody'"),
        (client.child("x", ""), Code.INVALID_ARGUMENT, "parent_name is empty"),
        (bare, Code.INVALID_ARGUMENT, "set task or trace"),
        (foreign, Code.INVALID_ARGUMENT, "updates[3].event.id: action p/development/local-2/a0 is not of run"),
        (client.update("a0", RUNNING, 0, attempt=0), Code.INVALID_ARGUMENT, "attempts are counted from 1"),
        (client.update("a0", Phase.UNSPECIFIED, 0), Code.INVALID_ARGUMENT, "event.phase is empty"),
        (stray, Code.INVALID_ARGUMENT, "output_uri: '/etc/passwd' is not below the server's storage"),
        (client.update("done", FAILED, 2), Code.FAILED_PRECONDITION, "is SUCCEEDED in attempt 1; FAILED can't follow"),
        (client.update("done", RUNNING, 0, attempt=2), Code.FAILED_PRECONDITION, "is SUCCEEDED in attempt 1"),
    ]
    statuses = await client.report(*(update for update, _, _ in bad), client.child("good"))
    for status, (_, code, words) in zip(statuses, bad, strict=False):
        assert (status.code, words in status.message) == (code, True), status
    assert statuses[-1].code == 0
    assert (await client.details("good")).status.phase == RUNNING
    with pytest.raises(InvalidArgument, match="updates is empty"):
        await client.report()
    with pytest.raises(NotFound, match="there is no run"):
        await client.report(client.child("b"), run=RunKey("p", "development", "local-9"))


async def test_a_name_that_no_list_could_find_is_refused(client: Client) -> None:
    """As of runs that are carried out here."""
    with pytest.raises(InvalidArgument, match=r"task_template\.id\.name has 256 characters; at most 255"):
        await client.create(task_spec=task_spec("x" * 256))


async def test_an_abort_is_final(client: Client) -> None:
    """It takes what lives anywhere below; nothing that is reported later changes that; an ended run stays as it ended."""
    await client.create()
    await client.told(client.child("b"), client.child("c", "b"), client.update("b", FAILED, 1))
    request = run_service_pb2.AbortRunRequest(run_id=RUN.idl(ORG), reason="enough")
    await client.handlers.abort_run(request, context("bob"))
    root = await client.details()
    assert (root.abort_info.reason, root.abort_info.aborted_by.user.id.subject) == ("enough", "bob")
    assert [(await client.details(name)).status.phase for name in "bc"] == [FAILED, ABORTED]

    statuses = await client.report(client.update("c", SUCCEEDED, 1), client.child("d"), client.update("a0", ABORTED, 1))
    assert [status.code for status in statuses] == [Code.ABORTED, Code.ABORTED, 0]
    assert "was aborted: enough" in statuses[0].message
    await client.handlers.abort_run(request, context("eve"))
    assert (await client.details()).abort_info.aborted_by.user.id.subject == "bob"


async def test_a_client_aborts_its_own(client: Client) -> None:
    """With its words as the reason."""
    await client.create()
    update = client.update("a0", ABORTED, 0)
    update.event.error_info.message = "aborted by user (SIGINT)"
    await client.told(update)
    assert (await client.details()).abort_info.reason == "aborted by user (SIGINT)"


async def test_names(client: Client) -> None:
    """The same call again finds its run, another one of that name is refused; some names are not for tracked runs."""
    first = await client.create()
    assert await client.create() == first
    with pytest.raises(AlreadyExists, match="local-1"):
        await client.create(labels={"a": "b"})
    for name in ("r1", "u1", "No", ""):
        with pytest.raises(InvalidArgument, match=r"run_id\.name"):
            await client.create(name)
    place = identifier_pb2.ProjectIdentifier(name="p", domain="development", organization=ORG)
    unnamed = idl.CreateTrackedRunRequest(project_id=place, task_spec=task_spec())
    names = [
        (await client.handlers.create_run(unnamed, context(request_id=number))).run.action.id.run.name
        for number in ("one", "one", "two")
    ]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("local-")


async def test_a_request_id_is_kept_as_long_as_an_index_takes_it(client: Client) -> None:
    """Postgres refuses a key of thousands of bytes: the call would fail however often it came."""
    place = identifier_pb2.ProjectIdentifier(name="p", domain="development", organization=ORG)
    unnamed = idl.CreateTrackedRunRequest(project_id=place, task_spec=task_spec())
    long = context(request_id="".join(chr(33 + number * 7919 % 94) for number in range(8000)))
    names = [(await client.handlers.create_run(unnamed, long)).run.action.id.run.name for _ in range(2)]
    assert names[0] == names[1]
    kept, _ = await client.world.ledger.run(RunKey("p", "development", names[0]))
    assert 0 < len(kept.request_id or "") <= 256


async def test_what_is_tracked_is_not_carried_out_here(client: Client) -> None:
    """The executor hears of none of it and finds none; nobody enqueues work there; the lists are two."""
    with client.world.ledger.changes.subscribe(Everything()) as told:
        await client.create()
        await client.world.run("r1")
        await client.told(client.child("b"))
        assert [action.key.run for action in told.take()] == ["r1"]
    assert [action.key.run for action in await client.world.ledger.live()] == ["r1"]
    with pytest.raises(FailedPrecondition, match="is tracked"):
        await client.world.child("x", A0)
    with pytest.raises(InvalidArgument, match="source"):
        message = run_service_pb2.CreateRunRequest(task_spec=task_spec(), source=run_definition_pb2.RUN_SOURCE_TRACKED)
        message.run_id.CopyFrom(RunKey("p", "development", "x").idl())
        await client.world.handlers.create_run(message, context())

    request = run_service_pb2.ListRunsRequest(org=ORG)
    for handlers, names in ((client.handlers, ["local-1"]), (client.world.handlers, ["r1"])):
        assert [run.action.id.run.name for run in (await handlers.list_runs(request, context())).runs] == names
        async with aclosing(handlers.watch_runs(run_service_pb2.WatchRunsRequest(org=ORG), context())) as watch:
            assert [run.action.id.run.name for run in (await anext(watch)).runs] == names
    by_name = run_service_pb2.GetRunDetailsRequest(run_id=RUN.idl())
    assert (await client.world.handlers.get_run_details(by_name, context())).details.action.metadata.source == 4
    other = RunKey("p", "development", "r1")
    calls: list[Any] = [
        client.handlers.get_run_details(run_service_pb2.GetRunDetailsRequest(run_id=other.idl()), context()),
        client.handlers.get_action_details(
            run_service_pb2.GetActionDetailsRequest(action_id=other.action("a0").idl()), context()
        ),
        client.handlers.list_actions(run_service_pb2.ListActionsRequest(run_id=other.idl()), context()),
        client.handlers.abort_run(run_service_pb2.AbortRunRequest(run_id=other.idl()), context()),
        client.report(client.update("a0", RUNNING, 0), run=other),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="is not tracked"):
            await call


async def test_watches(client: Client) -> None:
    """Of a run, an action, a run's actions and all runs: as it is, then what changes; the first two end with what they tell."""
    await client.create()
    run = client.handlers.watch_run_details(run_service_pb2.WatchRunDetailsRequest(run_id=RUN.idl(ORG)), context())
    action = client.handlers.watch_action_details(run_service_pb2.WatchActionDetailsRequest(action_id=A0.idl(ORG)), context())
    actions = client.handlers.watch_actions(run_service_pb2.WatchActionsRequest(run_id=RUN.idl(ORG)), context())
    runs = client.handlers.watch_runs(run_service_pb2.WatchRunsRequest(org=ORG), context())
    async with aclosing(run), aclosing(action), aclosing(actions), aclosing(runs):
        for watch in (run, action, actions, runs):
            await anext(watch)
        await client.told(client.child("b"), client.update("a0", SUCCEEDED, 0))
        assert [(await anext(run)).details.action.status.phase, (await anext(action)).details.status.phase] == [SUCCEEDED] * 2
        names = {each.action.id.name for each in (await anext(actions)).enriched_actions}
        assert names == {"a0", "b"}
        assert [each.action.status.phase for each in (await anext(runs)).runs] == [SUCCEEDED]
        for watch in (run, action):
            with pytest.raises(StopAsyncIteration):
                await anext(watch)


async def test_data_is_found_by_its_place(client: Client) -> None:
    """A child's inputs are where its client puts them, without a word; where it put none, there are none."""
    world = client.world
    await client.create()
    await client.told(client.child("b"), client.child("c"))
    await world.data.put(f"{tracked_base(world.base, RUN)}/b/inputs.pb", inputs(x=3).SerializeToString())
    downloads = Downloads(store=world.data, ledger=world.ledger, specs=world.specs, max_bytes=1000, max_expiry=60)
    assert (await downloads.data(RUN.action("b"))).inputs == inputs(x=3)
    assert await downloads.data(RUN.action("c")) == dataproxy_service_pb2.GetActionDataResponse()
    request = idl.CreateTrackedRunRequest(offloaded_input_data={"uri": "/etc/passwd"})
    with pytest.raises(InvalidArgument, match=r"offloaded_input_data\.uri"):
        await client.create("local-2", offloaded_input_data=request.offloaded_input_data)


async def test_filters_of_tracked_runs(client: Client) -> None:
    """The same as of any runs."""
    await client.create("local-1", labels={"team": "red"})
    await client.create("local-2")
    wanted = list_pb2.Filter(function=list_pb2.Filter.EQUAL, field="labels.team", values=["red"])
    request = run_service_pb2.ListRunsRequest(request={"filters": [wanted]}, project_id={"name": "p", "domain": "development"})
    assert [run.action.id.run.name for run in (await client.handlers.list_runs(request, context())).runs] == ["local-1"]


@pytest.mark.virtual_time
async def test_a_silent_run_is_given_up(tmp_path: Path) -> None:
    """An hour after the last word of any of its actions, and not before; what is told then is refused."""
    database = InlineDatabase()
    await database.start()
    clock = LoopClock()
    ledger = Ledger(database=database, clock=clock)

    async def anywhere(project: str, domain: str) -> None:
        return

    async with world_in(tmp_path, database) as world:
        tracked = TrackedRuns(
            ledger=ledger, specs=world.specs, clock=clock, require_project=anywhere, owns=world.data.owns, base=world.base
        )
        client = Client(
            world, TrackedRunsHandlers(ledger=ledger, reader=Reader(ledger=ledger, data=world.data), tracked=tracked)
        )
        silence = Silence(ledger=ledger, clock=clock, limit=3600)
        database.failing = [OSError("disk I/O error")]
        silence.start()
        await asyncio.sleep(10)
        await client.create()
        await client.told(client.child("b"))
        await asyncio.sleep(3000)
        await client.told(client.update("b", RUNNING, 1))
        heard = clock.now()
        async with aclosing(ledger.watch_action(A0)) as changes:
            ended: list[Action] = [action async for action in changes]
        assert ended[-1].phase is ABORTED
        assert "nothing was reported for 3600 s (tracked.silence)" in ended[-1].reason
        assert 3600 * SECOND <= Micros(ended[-1].updated_at) - heard < 3700 * SECOND
        assert (await ledger.action(RUN.action("b"))).phase is ABORTED
        (status,) = await client.report(client.update("b", SUCCEEDED, 2))
        assert status.code == Aborted.code
        await silence.stop()
    ledger.changes.close()
    await database.stop()
