"""Jobs of connectors: created once, asked about, told, deleted, and never forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from flyteidl2.connector import connector_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.errors import (
    Code,
    FailedPrecondition,
    FlyteUnifiedError,
    NotFound,
    RpcError,
    Unavailable,
    Unimplemented,
)
from flyte_unified.core.phases import Phase
from flyte_unified.launchers.api import Ended, Progress, Started
from flyte_unified.launchers.connectors import store as sql
from flyte_unified.launchers.kept_logs import address
from flyte_unified.ledger.api import Failure
from flyte_unified.net.connectors import NoAnswer
from flyte_unified.plugins.api import Job
from tests.unit.launchers.farm import POLL, WORK, Phases, resource, standing

pytestmark = pytest.mark.virtual_time

RUNNING = resource(Phases.RUNNING, "it grows")
DONE = resource(Phases.SUCCEEDED, "harvested", outputs=("o0",))
BROKEN = RpcError(Code.INTERNAL, "connector c:1: boom")


async def test_a_job_is_told_from_its_creation_to_its_end(tmp_path: Path) -> None:
    """Each phase, message and link once, however often it is asked about; its outputs are stored."""
    queued = resource(Phases.WAITING_FOR_RESOURCES, "no rain")
    linked = resource(Phases.RUNNING, "it grows")
    linked.log_links.add(name="Field", uri="http://field")
    async with standing(tmp_path, queued, queued, linked, linked, linked, DONE) as stand, stand.server() as (launcher, found):
        assert found == []
        await launcher.launch(stand.job(outputs=("o0",)))
        await launcher.launch(stand.job(outputs=("o0",)))
        assert (await stand.ended()).code == 0
        kinds = [(type(event), getattr(event, "phase", None)) for event in stand.events]
        assert kinds == [
            (Progress, Phase.QUEUED),
            (Progress, Phase.WAITING_FOR_RESOURCES),
            (Started, None),
            (Progress, Phase.RUNNING),
            (Ended, None),
        ]
        assert stand.told() == ["farm job created by connector c:1", "no rain", "it grows", "harvested"]
        started = next(event for event in stand.events if isinstance(event, Started))
        assert started.details is not None
        assert [(link.name, link.uri, link.ready) for link in started.details.log_info] == [("Field", "http://field", True)]
        assert started.details.log_context.connector.endpoint == "c:1"
        stored = common_pb2.Outputs.FromString(await stand.world.store.get(f"{stand.world.base}/r1/a0/1/outputs.pb"))
        assert [literal.name for literal in stored.literals] == ["o0"]
        assert len(stand.farm.created) == 1


async def test_questions_are_quick_at_first(tmp_path: Path) -> None:
    """Then at the interval that the operator chose."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        await launcher.launch(stand.job())
        await asyncio.sleep(120)
        gaps = [later - earlier for earlier, later in zip(stand.farm.times, stand.farm.times[1:], strict=False)]
        assert gaps[0] < 0.3
        assert all(0.9 * POLL <= gap <= 1.1 * POLL for gap in gaps[-4:])


@pytest.mark.parametrize(
    ("last", "code", "words", "retryable"),
    [
        (resource(Phases.FAILED, "hail"), "TaskFailedWithError", "hail", False),
        (resource(Phases.FAILED), "TaskFailedWithError", "gave no reason", False),
        (resource(Phases.RETRYABLE_FAILED, "a mole"), "TaskFailedWithError", "a mole", True),
        (resource(Phases.ABORTED, "sold"), "JobAborted", "aborted from outside, says connector c:1: sold", False),
        (resource(Phases.SUCCEEDED), "TaskFailedWithError", "gave no output o0", False),
        (resource(Phases.SUCCEEDED, outputs=("other",)), "TaskFailedWithError", "gave no output o0", False),
    ],
)
async def test_a_job_that_fails_is_the_users(
    tmp_path: Path, last: connector_pb2.Resource, code: str, words: str, retryable: bool
) -> None:
    """With the connector's own words."""
    async with standing(tmp_path, RUNNING, last) as stand, stand.server() as (launcher, _):
        await launcher.launch(stand.job(outputs=("o0",)))
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.failure, fault.retryable) == (code, Failure.USER, retryable)
        assert words in fault.message
        assert stand.farm.deleted == []


async def test_outputs_that_the_job_stored_itself_are_left_alone(tmp_path: Path) -> None:
    """A connector may run the SDK's runtime somewhere else, which leaves them as files."""
    async with standing(tmp_path, resource(Phases.SUCCEEDED)) as stand, stand.server() as (launcher, _):
        content = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name="o0")]).SerializeToString()
        await stand.world.put(WORK.action, "outputs.pb", content)
        await launcher.launch(stand.job(outputs=("o0",)))
        assert (await stand.ended()).code == 0
        assert await stand.world.store.get(f"{stand.world.base}/r1/a0/1/outputs.pb") == content


@pytest.mark.parametrize(
    ("error", "code", "failure", "retryable"),
    [
        (BROKEN, "JobNotCreated", Failure.USER, True),
        (NotFound("no such type"), "UnsupportedTaskType", Failure.USER, False),
        (Unimplemented("no connector at all"), "UnsupportedTaskType", Failure.USER, False),
        (NoAnswer("late"), "ConnectorFailed", Failure.SYSTEM, True),
    ],
)
async def test_a_creation_that_fails(
    tmp_path: Path, error: FlyteUnifiedError, code: str, failure: Failure, retryable: bool
) -> None:
    """It is not repeated within the attempt: what is said of it decides."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["create"] = [error]
        await launcher.launch(stand.job())
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.failure, fault.retryable) == (code, failure, retryable)
        assert error.message in fault.message
        assert stand.farm.calls["create"] == 1


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (NotFound("there is none"), "SecretNotFound"),
        (FailedPrecondition("this server may not read it"), "SecretUnavailable"),
        (b"\xff", "SecretUnavailable"),
    ],
)
async def test_a_secret_that_can_not_be_given(tmp_path: Path, found: bytes | FlyteUnifiedError, code: str) -> None:
    """It is told before anything is created."""
    async with standing(tmp_path, DONE) as stand, stand.server() as (launcher, _):
        stand.secrets["well"] = found
        attempt = stand.job()
        assert isinstance(attempt.work, Job)
        attempt.work.request.connection.secrets["key"] = "well"
        await launcher.launch(attempt)
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.failure) == (code, Failure.USER)
        assert stand.farm.calls["create"] == 0


async def test_inputs_that_are_gone_are_told(tmp_path: Path) -> None:
    """The connector is not bothered."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        await stand.world.store.delete(f"{stand.world.base}/r1/inputs.pb")
        await launcher.launch(stand.job())
        fault = (await stand.ended()).fault
        assert fault is not None
        assert "inputs.pb" in fault.message
        assert stand.farm.calls["create"] == 0


async def test_a_connector_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Before the job is created and while it runs; each time that is told once."""
    async with standing(tmp_path, RUNNING, DONE) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["create"] = [Unavailable("connector c:1 can't be reached")] * 20
        await launcher.launch(stand.job())
        await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
        stand.farm.troubles["get"] = [Unavailable("gone"), NoAnswer("silent"), Unavailable("gone")]
        assert (await stand.ended()).code == 0
        assert [words for words in stand.told() if "waiting" in words] == [
            "connector c:1 can't be reached; waiting for it",
            "gone; waiting for it",
        ]
        assert len(stand.farm.created) == 1


async def test_a_connector_that_fails_now_and_then_is_asked_again(tmp_path: Path) -> None:
    """Nine times in a row are no reason to give a job up."""
    async with standing(tmp_path, RUNNING, RUNNING, DONE) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["get"] = [BROKEN] * 9
        await launcher.launch(stand.job(outputs=("o0",)))
        assert (await stand.ended()).code == 0


async def test_a_job_that_nothing_can_be_known_of_is_given_up(tmp_path: Path) -> None:
    """As a fault of the system; it is deleted before another may begin."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["get"] = [BROKEN] * 10
        await launcher.launch(stand.job())
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.failure, fault.retryable) == ("ConnectorFailed", Failure.SYSTEM, True)
        assert stand.farm.deleted == [b"job 1 at c:1"]


async def test_a_type_that_its_connector_forgot_fails_for_good(tmp_path: Path) -> None:
    """At once: nobody could say how the job ends."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["get"] = [NotFound("connector c:1: what is farm?")]
        stand.farm.troubles["delete"] = [NotFound("connector c:1: what is farm?")]
        await launcher.launch(stand.job())
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.retryable) == ("UnsupportedTaskType", False)
        assert "c:1" in fault.message


async def test_whoever_is_not_wanted_is_deleted(tmp_path: Path) -> None:
    """As often as it takes; its end is told then, and it is forgotten."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        await launcher.launch(stand.job())
        await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
        stand.farm.troubles["delete"] = [BROKEN, Unavailable("gone")]
        await launcher.kill(WORK, grace=1.0)
        await stand.ended()
        assert stand.farm.deleted == [b"job 1 at c:1"]
        assert await stand.world.database.read(sql.every) != []
        await launcher.forget(WORK)
        assert await stand.world.database.read(sql.every) == []


async def test_one_that_is_not_wanted_while_it_is_created_is_deleted(tmp_path: Path) -> None:
    """A creation is never broken off: the job would be lost."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.gate.clear()
        await launcher.launch(stand.job())
        await stand.farm.creating.wait()
        await launcher.kill(WORK, grace=1.0)
        await asyncio.sleep(1)
        assert not any(isinstance(event, Ended) for event in stand.events)
        stand.farm.gate.set()
        await stand.ended()
        assert stand.farm.deleted == [b"job 1 at c:1"]


async def test_one_that_is_not_wanted_before_it_is_created_is_not_created(tmp_path: Path) -> None:
    """It ends at once, though the connector is away."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["create"] = [Unavailable("gone")] * 1000
        await launcher.launch(stand.job())
        await stand.until(stand.told)
        await launcher.kill(WORK, grace=1.0)
        await stand.ended()
        assert (stand.farm.created, stand.farm.calls["delete"]) == ([], 0)
        await launcher.forget(WORK)


async def test_the_next_server_goes_on(tmp_path: Path) -> None:
    """It finds the job where it was kept, and creates none."""
    async with standing(tmp_path, RUNNING) as stand:
        async with stand.server() as (launcher, _):
            await launcher.launch(stand.job(outputs=("o0",)))
            await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
        stand.farm.states = [DONE]
        async with stand.server() as (launcher, found):
            assert [(type(event), event.id) for event in found] == [(Progress, WORK)]
            assert (await stand.ended()).code == 0
        assert len(stand.farm.created) == 1


async def test_a_close_lets_a_creation_end(tmp_path: Path) -> None:
    """So that the next server knows of the job; but it does not wait for ever."""
    async with standing(tmp_path, RUNNING) as stand:
        stand.farm.gate.clear()
        async with stand.server() as (launcher, _):
            await launcher.launch(stand.job())
            await stand.farm.creating.wait()
            asyncio.get_running_loop().call_later(1.0, stand.farm.gate.set)
        async with stand.server() as (launcher, found):
            assert [event.id for event in found] == [WORK]
        with pytest.raises(Unavailable):
            await launcher.launch(stand.job())


async def test_what_could_not_be_deleted_is_left_to_the_next_server(tmp_path: Path) -> None:
    """After some minutes its end is told, but it is kept in mind."""
    async with standing(tmp_path, RUNNING) as stand:
        async with stand.server() as (launcher, _):
            await launcher.launch(stand.job())
            await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
            stand.farm.troubles["delete"] = [BROKEN] * 1000
            await launcher.kill(WORK, grace=1.0)
            await stand.ended()
            await launcher.forget(WORK)
        stand.farm.troubles.clear()
        async with stand.server() as (launcher, found):
            assert [event.id for event in found] == [WORK]
            await launcher.kill(WORK, grace=1.0)
            await stand.ended()
            assert stand.farm.deleted == [b"job 1 at c:1"]


async def test_of_two_leaders_one_has_the_job(tmp_path: Path) -> None:
    """The job that came second is deleted; the attempt goes on with the first."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.gate.clear()
        await launcher.launch(stand.job())
        await stand.farm.creating.wait()
        async with stand.server() as (other, _):
            stand.farm.gate.set()
            await other.launch(stand.job())
            await stand.until(lambda: sum(isinstance(event, Started) for event in stand.events) == 2)
        assert len(stand.farm.created) == 2
        assert len(stand.farm.deleted) == 1
        (kept,) = await stand.world.database.read(sql.every)
        assert kept.request.resource_meta not in stand.farm.deleted


async def test_of_several_connectors_the_one_that_runs_the_type_is_taken(tmp_path: Path) -> None:
    """One that is away may be the one: it is waited for."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.runs = {"a:1": ["mill"], "b:1": ["farm"]}
        stand.farm.troubles["categories of b:1"] = [Unavailable("connector b:1 is away")]
        await launcher.launch(stand.job("a:1", "b:1"))
        await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
        assert "connector b:1 is away" in stand.told()[0]
        assert stand.told()[1] == "farm job created by connector b:1"


async def test_a_connector_that_gave_a_type_away_is_left(tmp_path: Path) -> None:
    """What was known of it is asked again, and another takes the job."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        stand.farm.runs = {"a:1": [], "b:1": ["farm"]}
        stand.farm.troubles["create"] = [NotFound("not mine")]
        await launcher.launch(stand.job("a:1", "b:1"))
        await stand.until(lambda: any(isinstance(event, Started) for event in stand.events))
        assert stand.farm.calls["categories of a:1"] == 2


async def test_a_type_that_nobody_runs_names_who_was_asked(tmp_path: Path) -> None:
    """For good."""
    async with standing(tmp_path, RUNNING) as stand, stand.server() as (launcher, _):
        await launcher.launch(stand.job("a:1", "b:1"))
        fault = (await stand.ended()).fault
        assert fault is not None
        assert (fault.code, fault.retryable) == ("UnsupportedTaskType", False)
        assert "a:1, b:1" in fault.message


async def test_a_connector_that_always_says_something_else_is_cut_short(tmp_path: Path) -> None:
    """An action's record has a bound."""
    states = [resource(Phases.RUNNING, f"{number} %") for number in range(150)]
    async with standing(tmp_path, *states, DONE) as stand, stand.server() as (launcher, _):
        await launcher.launch(stand.job())
        await stand.ended()
        assert len(stand.told()) == 101


def page(*texts: str, token: str | None = None) -> connector_pb2.GetTaskLogsResponse:
    if token is not None:
        return connector_pb2.GetTaskLogsResponse(header=connector_pb2.GetTaskLogsResponseHeader(token=token))
    body = connector_pb2.GetTaskLogsResponseBody()
    for text in texts:
        body.lines.add(message=text).timestamp.FromSeconds(1_700_000_000)
    return connector_pb2.GetTaskLogsResponse(body=body)


async def test_a_log_is_kept_before_the_end_is_told(tmp_path: Path) -> None:
    """Times and texts, a line each."""
    async with standing(tmp_path, DONE) as stand, stand.server() as (launcher, _):
        stand.farm.pages = [page("one\ntwo\n"), page("three")]
        await launcher.launch(stand.job())
        await stand.ended()
        content = await stand.world.store.get(address(f"{stand.world.base}/_logs", WORK))
        stamp = "2023-11-14T22:13:20.000000Z"
        assert content.decode().splitlines() == [f"{stamp} one", f"{stamp} two", f"{stamp} three"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Unimplemented("what?"), "tells no logs of farm jobs"),
        (RpcError(Code.UNKNOWN, "Unexpected <class 'NotImplementedError'>: "), "tells no logs of farm jobs"),
        (BROKEN, "the log can't be had: connector c:1: boom"),
    ],
)
async def test_a_log_that_is_not_to_be_had_says_why(tmp_path: Path, error: FlyteUnifiedError, words: str) -> None:
    """In a line of ours."""
    async with standing(tmp_path, DONE) as stand, stand.server() as (launcher, _):
        stand.farm.troubles["logs"] = [error]
        await launcher.launch(stand.job())
        assert (await stand.ended()).code == 0
        content = (await stand.world.store.get(address(f"{stand.world.base}/_logs", WORK))).decode()
        assert words in content
        assert "[flyte-unified] " in content
