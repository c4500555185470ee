"""The ledger on a real database: what is stored once, what is refused, and who is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.core import execution_pb2
from sqlalchemy import delete

from flyte_unified.core.errors import Aborted, AlreadyExists, NotFound
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database, Work
from flyte_unified.db.tables import task_specs
from flyte_unified.ledger.api import Action, ActionType, Everything, Failure, Ledger, Move, Retry, TaskId
from tests.unit.ledger.births import ROOT, RUN, TASK, action, run, spec
from tests.unit.manual_clock import ManualClock

ERROR = execution_pb2.ExecutionError(message="it broke", kind=execution_pb2.ExecutionError.USER)


@pytest.fixture
async def ledger(database: Database, clock: ManualClock) -> Ledger:
    return Ledger(database=database, clock=clock)


@pytest.fixture
async def running(ledger: Ledger) -> Ledger:
    """With a run whose root runs."""
    await ledger.create_run(run())
    await ledger.move(ROOT, Move(to=Phase.RUNNING))
    return ledger


async def test_a_run_is_read_as_it_was_created(ledger: Ledger, database: Database, clock: ManualClock) -> None:
    """The run, its root and the spec of its task are there together, also for who did not store them."""
    new = run()
    created, root, is_new = await ledger.create_run(new)
    assert is_new
    assert (created, root) == (new.run, new.root)
    for reader in (ledger, Ledger(database=database, clock=clock)):
        assert (await reader.run(RUN))[0] == new.run
        assert await reader.action(ROOT) == new.root
        assert await reader.spec(new.root.spec_digest or "") == spec().message


async def test_what_begins_a_run_is_not_read_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor asks for the run and its task's spec as soon as it hears of the root."""
    new = run()
    await ledger.create_run(new)
    monkeypatch.delattr(Ledger, "read")
    assert (await ledger.run(RUN))[0] == new.run
    assert await ledger.spec(new.root.spec_digest or "") == spec().message


async def test_a_spec_that_its_database_lost_is_stored_again(running: Ledger, database: Database, clock: ManualClock) -> None:
    """A failover may take commits along: what this server remembers as stored is there with the next action, for every one."""
    digest = spec().digest
    for begin in (
        lambda: running.create_run(run(RUN._replace(run="next").action("a0"))),
        lambda: running.enqueue(action("b"), spec()),
    ):
        await database.write(lambda: _lose(digest))
        await begin()
        assert await Ledger(database=database, clock=clock).spec(digest) == spec().message


def _lose(digest: str) -> Work[None]:
    yield delete(task_specs).where(task_specs.c.digest == digest)


async def test_a_repeated_create_is_the_same_run(ledger: Ledger) -> None:
    """A client that did not hear the answer asks again: the run is as it is by then, and stored once."""
    await ledger.create_run(run())
    await ledger.move(ROOT, Move(to=Phase.RUNNING))
    _, root, is_new = await ledger.create_run(run())
    assert (is_new, root.phase) == (False, Phase.RUNNING)


async def test_a_taken_run_name_is_refused(ledger: Ledger) -> None:
    """Other content under the same name is an error that names the field; the run stays as it is."""
    await ledger.create_run(run())
    with pytest.raises(AlreadyExists, match=r"run_id\.name"):
        await ledger.create_run(run(content="other"))
    assert (await ledger.run(RUN))[0].content == "same"


async def test_an_unnamed_create_is_known_by_its_request(ledger: Ledger) -> None:
    """The repeated call would get another random name; its request id leads to the run that it made, in its project only."""
    await ledger.create_run(run(request_id="x", chosen=False))
    again, root, is_new = await ledger.create_run(run(RUN._replace(run="other").action("a0"), request_id="x", chosen=False))
    assert (again.key, root.key, is_new) == (RUN, ROOT, False)

    elsewhere = RunKey("q", "development", "r").action("a0")
    assert (await ledger.create_run(run(elsewhere, request_id="x", chosen=False)))[2]


async def test_an_enqueue_is_stored_once(running: Ledger) -> None:
    """The SDK repeats calls: the second answer is the action as it is by then."""
    first, is_new = await running.enqueue(action("b"), spec())
    assert is_new and first.depth == 1
    await running.move(RUN.action("b"), Move(to=Phase.RUNNING))
    again, is_new = await running.enqueue(action("b"), spec())
    assert (is_new, again.phase) == (False, Phase.RUNNING)


async def test_of_many_that_enqueue_at_once_one_stores(running: Ledger) -> None:
    """Whatever comes together in one commit, the action is there once and told of once."""
    with running.changes.subscribe(Everything()) as told:
        answers = await asyncio.gather(*(running.enqueue(action("b"), spec()) for _ in range(20)))
    assert [is_new for _, is_new in answers].count(True) == 1
    assert len(told.take()) == 1
    assert len(await running.family(ROOT)) == 2


@pytest.mark.parametrize(
    ("named", "other"),
    [
        ("parent", {"parent": "c"}),
        ("action_type", {"action_type": ActionType.TRACE}),
        ("group", {"group_name": "other"}),
        ("task", {"task": TaskId(*TASK[:3], "v2")}),
        ("input_uri", {"input_uri": "/elsewhere"}),
        ("spec_digest", {"spec_digest": "0" * 64}),
    ],
)
async def test_a_taken_action_name_is_refused_naming_what_differs(running: Ledger, named: str, other: dict[str, Any]) -> None:
    """Names are made from content by the SDK; two contents under one name must not be mistaken for each other."""
    await running.enqueue(action("b"), spec())
    await running.enqueue(action("c"), spec())
    with pytest.raises(AlreadyExists, match=f"action b .*{named}$"):
        await running.enqueue(replace(action("b"), **other), spec())
    assert (await running.action(RUN.action("b"))).version == 1


async def test_an_action_needs_a_living_parent(running: Ledger) -> None:
    """Under one that is not there nothing starts, nor under one that has ended; what is there already is still answered."""
    await running.enqueue(action("b"), spec())
    with pytest.raises(NotFound, match=r"parent_action_name.*'nobody'"):
        await running.enqueue(action("c", parent="nobody"), spec())
    await running.move(ROOT, Move(to=Phase.SUCCEEDED))
    with pytest.raises(Aborted, match=r"'a0' has ended \(SUCCEEDED\)"):
        await running.enqueue(action("c"), spec())
    known, is_new = await running.enqueue(action("b"), spec())
    assert (is_new, known.phase) == (False, Phase.ABORTED)


async def test_an_end_takes_along_what_it_started(running: Ledger) -> None:
    """An abort reaches every living descendant in the same commit, with its reason and by whom; the ended ones stay."""
    for name, parent in (("b", "a0"), ("c", "b"), ("d", "c"), ("done", "b")):
        await running.enqueue(action(name, parent=parent), spec())
    await running.move(RUN.action("done"), Move(to=Phase.SUCCEEDED))
    with running.changes.subscribe(Everything()) as told:
        changed = await running.move(ROOT, Move(to=Phase.ABORTED, reason="enough", principal="ada"))

    assert changed[0].key == ROOT
    assert {each.key.name for each in changed} == {"a0", "b", "c", "d"} == {each.key.name for each in told.take()}
    for each in changed:
        assert (each.phase, each.reason, each.principal) == (Phase.ABORTED, "enough", "ada")
        assert await running.action(each.key) == each
    assert (await running.action(RUN.action("done"))).phase is Phase.SUCCEEDED


async def test_attempts_are_read_in_order(running: Ledger) -> None:
    """Every finished attempt keeps its error; the latest one comes last."""
    for attempt in (1, 2):
        words = execution_pb2.ExecutionError(message=f"attempt {attempt}", kind=execution_pb2.ExecutionError.USER)
        await running.move(ROOT, Retry(attempt=attempt, error=words, failure=Failure.USER))
    await running.move(ROOT, Move(to=Phase.RUNNING, attempt=3), Move(to=Phase.SUCCEEDED, attempt=3))
    details = await running.details(ROOT)

    assert [each.attempt for each in details.attempts] == [1, 2, 3]
    assert [each.error_info.message for each in details.attempts] == ["attempt 1", "attempt 2", ""]
    assert [Phase(each.phase) for each in details.attempts] == [Phase.FAILED, Phase.FAILED, Phase.SUCCEEDED]


async def test_one_call_moves_through_many_steps_in_one_commit(running: Ledger) -> None:
    """Steps that are legal are taken, the others left out; watchers see the end of it."""
    with running.changes.subscribe(Everything()) as told:
        (after,) = await running.move(
            ROOT, Move(to=Phase.QUEUED), Move(to=Phase.PAUSED), Move(to=Phase.RUNNING), Move(to=Phase.SUCCEEDED)
        )
    assert after.phase is Phase.SUCCEEDED
    assert told.take() == [after]
    steps = [Phase(step.phase) for step in after.latest().phase_transitions]
    assert steps == [Phase.QUEUED, Phase.RUNNING, Phase.PAUSED, Phase.RUNNING, Phase.SUCCEEDED]


async def test_a_move_that_may_not_be_tells_nobody(running: Ledger) -> None:
    """No row changes, no watcher wakes; an action that is not there is an error."""
    await running.move(ROOT, Move(to=Phase.FAILED, error=ERROR))
    with running.changes.subscribe(Everything()) as told:
        assert await running.move(ROOT, Move(to=Phase.SUCCEEDED)) == []
        assert await running.move(ROOT, Move(to=Phase.ABORTED)) == []
    assert told.take() == []
    assert (await running.action(ROOT)).phase is Phase.FAILED
    with pytest.raises(NotFound, match="nobody"):
        await running.move(RUN.action("nobody"), Move(to=Phase.FAILED))


async def test_moves_that_come_together_are_one_after_the_other(running: Ledger) -> None:
    """Of two ends one is first and stays; the answers say which."""
    ends = [Phase.SUCCEEDED, Phase.FAILED, Phase.ABORTED, Phase.TIMED_OUT]
    answers = await asyncio.gather(*(running.move(ROOT, Move(to=end)) for end in ends))
    first = [end for end, changed in zip(ends, answers, strict=True) if changed]
    assert len(first) == 1
    assert (await running.action(ROOT)).phase is first[0]


async def test_a_watch_shows_what_is_there_and_then_every_change(running: Ledger) -> None:
    """The family as it is, then what happens to it, each action's last state among it, until the server stops."""
    await running.enqueue(action("b"), spec())
    watch = running.watch_family(ROOT)
    first, is_snapshot = await anext(watch)
    assert is_snapshot and {each.key.name for each in first} == {"a0", "b"}

    await running.enqueue(action("c"), spec())
    await running.move(RUN.action("b"), Move(to=Phase.RUNNING))
    await running.move(RUN.action("b"), Move(to=Phase.SUCCEEDED))
    changed, is_snapshot = await anext(watch)
    assert not is_snapshot
    assert {(each.key.name, each.phase) for each in changed} == {("c", Phase.QUEUED), ("b", Phase.SUCCEEDED)}

    running.changes.close()
    assert [update async for update in watch] == []


async def test_a_watch_that_begins_in_the_middle_misses_nothing(running: Ledger) -> None:
    """However the commits fall around the snapshot, snapshot and changes together end at the last state."""
    names = [f"b{n}" for n in range(20)]
    last: dict[str, Phase] = {}

    async def watch() -> None:
        async for actions, _ in running.watch_family(ROOT):
            last.update((each.key.name, each.phase) for each in actions)
            if len(last) == 21 and all(last[name].terminal for name in names):
                return

    async def work(name: str) -> None:
        await running.enqueue(action(name), spec())
        await running.move(RUN.action(name), Move(to=Phase.RUNNING))
        await running.move(RUN.action(name), Move(to=Phase.SUCCEEDED))

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for name in names[:10]:
            group.create_task(work(name))
        await asyncio.sleep(0)
        watching = [group.create_task(watch()) for _ in range(3)]
        for name in names[10:]:
            group.create_task(work(name))
    assert all(task.done() for task in watching)


async def test_a_watch_of_one_action_ends_with_it(running: Ledger) -> None:
    """The last state that is shown is terminal; of an ended action it is the only one."""
    seen: list[Action] = []

    async def watch() -> None:
        seen.extend([each async for each in running.watch_action(ROOT)])

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(watch())
        await running.move(ROOT, Move(to=Phase.PAUSED))
        await running.move(ROOT, Move(to=Phase.SUCCEEDED))
    assert seen[-1].phase is Phase.SUCCEEDED
    assert [each.phase async for each in running.watch_action(ROOT)] == [Phase.SUCCEEDED]
    with pytest.raises(NotFound):
        await anext(running.watch_action(RUN.action("nobody")))


async def test_live_is_what_has_not_ended(running: Ledger) -> None:
    """A start goes on with these, and with no others."""
    await running.enqueue(action("b"), spec())
    await running.enqueue(action("c"), spec())
    await running.move(RUN.action("b"), Move(to=Phase.SUCCEEDED))
    assert {each.key.name for each in await running.live()} == {"a0", "c"}
