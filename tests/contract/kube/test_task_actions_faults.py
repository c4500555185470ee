"""The mirror when the API server is away, slow or contradicts it: nothing is lost, nobody is asked without a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

from flyte_unified.core.errors import Unavailable
from flyte_unified.core.names import order_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import TASK_ACTIONS
from flyte_unified.testing.fake_kube import Asked, FakeKube
from tests.contract.kube.task_actions import CRD, Scene, scene_in
from tests.unit.executor.world import ROOT

_CHILDREN = 10


@pytest.fixture
async def scene(kube: Kube, fake: FakeKube, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    with capture_logs():
        async with scene_in(tmp_path, kube=kube, namespace=namespace) as scene:
            yield scene


def _orders(asked: Asked) -> bool:
    return asked.resource == "taskactions"


def _creations(asked: Asked) -> bool:
    return _orders(asked) and asked.verb == "create"


def _statuses(asked: Asked) -> bool:
    return _orders(asked) and asked.subresource == "status"


async def test_conflicts_are_tried_again(scene: Scene, fake: FakeKube):
    """A storm of them delays a status and loses none."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        fake.faults.conflict(5, _statuses)
        await scene.move(Phase.RUNNING, Phase.SUCCEEDED)
        await scene.says("Completed")
    assert fake.requests["patch", "taskactions", "status"] - fake.writes["patch", "taskactions", "status"] == 5


async def test_a_server_that_is_away_holds_up_orders_and_nothing_else(scene: Scene, fake: FakeKube):
    """The ledger takes what is new; when the server is back every live row gets its order, and then its work."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        fake.faults.outage()
        keys = [await scene.world.child(f"c{number}") for number in range(_CHILDREN)]
        await scene.world.abort(keys[0])
        assert not set(keys) & set(scene.handed_out)
        fake.faults.restore()
        for key in keys[1:]:
            await scene.is_handed_out(key)
            await scene.ordered(key)
        await scene.until(lambda: scene.order(keys[0]) is None)  # it may have been on its way
    assert keys[0] not in scene.handed_out


async def test_an_end_during_an_outage_is_told_after_it(scene: Scene, fake: FakeKube):
    """And the resources are let go and collected as ever."""
    async with scene.mirror(ttl=0.0):
        await scene.world.run()
        child = await scene.world.child("child")
        await scene.is_handed_out(child)
        fake.faults.outage(refuse=True)
        await scene.move(Phase.RUNNING, Phase.SUCCEEDED, key=child)
        await scene.move(Phase.RUNNING, Phase.SUCCEEDED)
        await scene.is_handed_out(phase=Phase.SUCCEEDED)
        fake.faults.restore()
        await scene.until(lambda: scene.order() is None and scene.order(child) is None)
    for key in (ROOT, child):
        assert scene.versions[order_name(key)][-1]["status"]["conditions"][0]["reason"] == "Completed"


async def test_a_creation_without_an_answer_is_not_made_twice(scene: Scene, fake: FakeKube):
    """The order that is there is taken; so is an end that was told but not answered."""
    async with scene.mirror(ttl=0.0):
        fake.faults.drop(1, _creations)
        await scene.world.run()
        await scene.is_handed_out()
        fake.faults.drop(1, _statuses)
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
        fake.faults.drop(2, lambda asked: _orders(asked) and asked.verb == "patch")
        await scene.move(Phase.SUCCEEDED)
        await scene.until(lambda: scene.order() is None)
    assert fake.writes["create", "taskactions", ""] == 1
    assert fake.writes["patch", "taskactions", "status"] == 2


async def test_a_server_with_too_much_to_do_is_left_in_peace(scene: Scene, fake: FakeKube):
    """For as long as it says."""
    async with scene.mirror():
        fake.faults.throttle(1, 1, _creations)
        await scene.world.run()
        asked_at = scene.world.clock.monotonic()
        await scene.is_handed_out()
        assert scene.world.clock.monotonic() - asked_at >= 0.9
    assert fake.requests["create", "taskactions", ""] == 2


async def test_what_happened_behind_a_forgotten_version_is_seen(scene: Scene, fake: FakeKube):
    """After a 410 everything is listed: a foreign status, a deletion, a resource that is gone."""
    async with scene.mirror():
        await scene.world.run()
        keys = [await scene.world.child(f"c{number}") for number in range(3)]
        for key in keys:
            await scene.is_handed_out(key)
        before = (await scene.ordered(keys[2]))["metadata"]["uid"]
        fake.faults.fail(503, 1, lambda asked: _orders(asked) and asked.verb == "watch")
        fake.faults.cut_watches()
        running = {"type": "Progressing", "status": "True", "reason": "Executing"} | {
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "",
        }
        await scene.write({"conditions": [running]}, keys[0])
        await scene.kube.delete(TASK_ACTIONS, order_name(keys[1]), namespace=scene.namespace)
        await scene.lose(keys[2])
        fake.faults.expire()
        await scene.world.reaches(keys[0], Phase.RUNNING)
        await scene.world.reaches(keys[1], Phase.ABORTED)
        await scene.until(lambda: (order := scene.order(keys[2])) and order["metadata"]["uid"] != before)


async def test_an_order_that_the_server_refuses_fails_its_action(scene: Scene, fake: FakeKube):
    """With the server's words: it would wait for ever."""
    async with scene.mirror():
        fake.faults.fail(422, 1, _creations, reason="Invalid", message="spec.group: no")
        await scene.world.run()
        action = await scene.world.reaches(ROOT, Phase.FAILED)
    error = action.execution_error()
    assert error is not None
    assert (error.code, "spec.group: no" in error.message) == ("TaskActionRefused", True)


async def test_who_waits_for_an_order_is_told_why(scene: Scene, fake: FakeKube):
    """A quota or a namespace that is missing stands in the action's events, once, and is waited for."""
    async with scene.mirror():
        fake.faults.fail(403, 3, _creations, message="exceeded quota")
        await scene.world.run()
        await scene.is_handed_out()
    events = (await scene.ledger.action(ROOT)).latest().cluster_events
    assert [("exceeded quota" in event.message) for event in events] == [True]


async def test_two_mirrors_for_a_moment_do_not_fight(scene: Scene, fake: FakeKube):
    """What one writes is an echo to the other."""
    async with scene.mirror(), scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
        await scene.move(Phase.SUCCEEDED)
        await scene.says("Completed")
        await scene.until(lambda: not (scene.order() or {"metadata": {"finalizers": 1}})["metadata"].get("finalizers"))
    assert fake.writes["create", "taskactions", ""] == 1
    assert fake.writes["patch", "taskactions", "status"] == 2


async def test_who_fights_for_a_status_is_slowed_down(scene: Scene, fake: FakeKube):
    """Another that writes the same again and again is overwritten, with growing pauses, and the ledger stays."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
        queued = {"type": "Progressing", "status": "True", "reason": "Queued", "message": ""}
        before = scene.world.clock.monotonic()
        for _ in range(6):
            await scene.write({"conditions": [queued | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]})
            await scene.says("Queued")
            await scene.says("Executing")
        assert scene.world.clock.monotonic() - before > 0.5
    assert (await scene.ledger.action(ROOT)).phase is Phase.RUNNING


async def test_a_definition_without_our_fields_costs_pauses_and_no_more(scene: Scene, fake: FakeKube):
    """Flyte's own drops our mark from each status, which then looks like another's: it is written again, ever more seldom."""
    definition = yaml.safe_load(CRD.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["recorded"]
    fake.apply(definition)
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        began, seventh = scene.world.clock.monotonic(), asyncio.Event()

        def seen(asked: Asked) -> bool:
            if _statuses(asked) and fake.requests["patch", "taskactions", "status"] >= 7:
                seventh.set()
            return False

        fake.faults.fail(503, 1, seen)
        await scene.move(Phase.RUNNING)
        await asyncio.wait_for(seventh.wait(), 10.0)
        assert scene.world.clock.monotonic() - began > 0.5
        await scene.move(Phase.SUCCEEDED)
        await scene.says("Completed")
    assert (await scene.ledger.action(ROOT)).phase is Phase.SUCCEEDED


async def test_work_that_has_begun_waits_for_the_order_that_owns_it(scene: Scene, fake: FakeKube):
    """It is handed out without one, but what is made for it would be collected by nobody."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
    await scene.lose()
    fake.faults.fail(503, 1 << 20, lambda asked: (asked.verb, asked.resource) == ("create", "taskactions"))
    async with scene.mirror() as mirror:
        await scene.is_handed_out(ROOT, Phase.RUNNING)
        with pytest.raises(Unavailable):
            mirror.owner(ROOT)
        fake.faults.restore()
        await scene.ordered()
