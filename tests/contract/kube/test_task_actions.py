"""What a mirror keeps equal: live actions of the ledger, and TaskActions of a cluster."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import execution_pb2, literals_pb2, tasks_pb2
from flyteidl2.task import common_pb2
from structlog.testing import capture_logs

from flyte_unified.actions.resource import FINALIZER
from flyte_unified.artifacts.model import ArtifactKey
from flyte_unified.core.errors import Unavailable
from flyte_unified.core.names import order_name
from flyte_unified.core.phases import Phase
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Conflict, Invalid, Missing
from flyte_unified.kube.kinds import TASK_ACTIONS, Object
from flyte_unified.ledger.api import EXECUTOR, Action, Failure, Move, Retry
from flyte_unified.testing.fake_kube import FakeKube
from tests.contract.kube.task_actions import Scene, scene_in
from tests.unit.artifacts.world import BLOB, file
from tests.unit.executor.world import ROOT, spec


@pytest.fixture
async def scene(kube: Kube, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_in(tmp_path, kube=kube, namespace=namespace) as scene:
        yield scene


def signal(value: bool) -> str:
    literal = literals_pb2.Literal()
    literal.scalar.primitive.boolean = value
    return base64.b64encode(literal.SerializeToString()).decode()


def condition(kind: str, reason: str, status: str = "True") -> Object:
    at = {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
    return {"type": kind, "status": status, "reason": reason, **at}


async def test_a_live_action_gets_its_order_and_is_then_handed_out(scene: Scene):
    """What it is, whose it is, and who may end it; a child's belongs to its parent's."""
    async with scene.mirror() as mirror:
        await scene.world.run()
        await scene.is_handed_out()
        child = await scene.world.child("child")
        await scene.is_handed_out(child)
        root, below = await scene.ordered(), await scene.ordered(child)
        owner = mirror.owner(ROOT)
    assert root["metadata"]["labels"] == {
        "flyte.org/project": "p",
        "flyte.org/domain": "development",
        "flyte.org/run": "r1",
        "flyte.org/action": "a0",
        "flyte.org/action-type": "task",
        "flyte.org/is-root": "true",
    }
    assert (root["metadata"]["finalizers"], "ownerReferences" in root["metadata"]) == ([FINALIZER], False)
    template = tasks_pb2.TaskTemplate.FromString(base64.b64decode(root["spec"]["taskTemplate"]))
    assert template == spec().task_template
    assert (below["spec"]["parentActionName"], below["metadata"]["labels"]["flyte.org/is-root"]) == ("a0", "false")
    reference = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "name": root["metadata"]["name"]} | {
        "uid": root["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    assert below["metadata"]["ownerReferences"] == [reference]
    assert owner == reference | {"controller": True}


async def test_a_successful_action_costs_four_writes_and_two_to_clean_up(scene: Scene, fake: FakeKube):
    """Its creation, a status for each phase; then it is marked and let go, and deleted when its time is over."""
    async with scene.mirror(ttl=0.5):
        await scene.world.run()
        await scene.is_handed_out()
        for phase, reason in (
            (Phase.INITIALIZING, "Initializing"),
            (Phase.RUNNING, "Executing"),
            (Phase.SUCCEEDED, "Completed"),
        ):
            await scene.move(phase)
            order = await scene.says(reason)
        await scene.until(lambda: scene.order() is None)
        last = scene.versions[order_name(ROOT)][-1]
    writes = {name: number for name, number in fake.writes.items() if name[1] == "taskactions"}
    assert writes == {
        ("create", "taskactions", ""): 1,
        ("patch", "taskactions", "status"): 3,
        ("patch", "taskactions", ""): 1,
        ("delete", "taskactions", ""): 1,
    }
    status = order["status"]
    assert [(one["type"], one["status"], one["reason"]) for one in status["conditions"]] == [
        ("Progressing", "False", "Completed"),
        ("Succeeded", "True", "Completed"),
    ]
    assert [step["phase"] for step in status["phaseHistory"]] == ["Queued", "Initializing", "Executing", "Completed"]
    assert status["attempts"] == 1
    assert last["metadata"]["labels"]["flyte.org/termination-status"] == "terminated"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.\d\d-\d\d", last["metadata"]["labels"]["flyte.org/completed-time"])
    assert "finalizers" not in last["metadata"]
    assert (await scene.ledger.action(ROOT)).phase is Phase.SUCCEEDED


async def test_states_that_nobody_could_see_are_not_written(
    scene: Scene, fake: FakeKube, kube: Kube, monkeypatch: pytest.MonkeyPatch
):
    """While one write is under way, later states replace each other."""
    asked, answer, patch = asyncio.Event(), asyncio.Event(), kube.patch

    async def slow(*args: Any, **kwargs: Any) -> Object:
        asked.set()
        await answer.wait()
        return await patch(*args, **kwargs)

    monkeypatch.setattr(kube, "patch", slow)
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.INITIALIZING)
        await asked.wait()
        await scene.move(Phase.RUNNING, Phase.PAUSED, Phase.RUNNING, Phase.SUCCEEDED)
        await scene.is_handed_out(phase=Phase.SUCCEEDED)
        answer.set()
        await scene.says("Completed")
    assert fake.writes["patch", "taskactions", "status"] == 2


async def test_an_attempt_that_fails_is_followed_by_the_next(scene: Scene):
    """The status tells whose fault it was by its count, and at the end why."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        error = execution_pb2.ExecutionError(code="Lost", message="no node", kind=execution_pb2.ExecutionError.SYSTEM)
        await scene.move(Phase.RUNNING)
        await scene.ledger.move(ROOT, Retry(attempt=1, error=error, failure=Failure.SYSTEM))
        await scene.until(lambda: ((scene.order() or {}).get("status") or {}).get("attempts") == 2)
        assert scene.reason() == "Queued"
        await scene.move(Phase.FAILED, error=error)
        status = (await scene.says("PermanentFailure"))["status"]
    assert (status["attempts"], status["systemFailures"]) == (2, 1)
    assert status["errorState"] == {"code": "Lost", "kind": "SYSTEM", "message": "no node"}


async def test_what_another_executor_writes_reaches_the_ledger(scene: Scene):
    """Phase, attempt, error and what the cache said; what follows is told of it."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.write({"attempts": 1, "cacheStatus": 1, "conditions": [condition("Progressing", "Executing")]})
        action = await scene.world.reaches(ROOT, Phase.RUNNING)
        await scene.is_handed_out(phase=Phase.RUNNING)
        assert action.cache_status == 1
        failure = {"code": "Oops", "kind": "USER", "message": "no"}
        await scene.write({"attempts": 2, "errorState": failure, "conditions": [condition("Progressing", "Queued")]})
        await scene.world.reaches(ROOT, Phase.QUEUED, attempt=2)
        await scene.write({"errorState": failure, "conditions": [condition("Failed", "PermanentFailure")]})
        ended = await scene.world.ended(ROOT)
        await scene.until(lambda: (scene.order() or {}).get("metadata", {}).get("labels", {}).get("flyte.org/completed-time"))
    assert ended.action.phase is Phase.FAILED
    assert [(attempt.attempt, attempt.error_info.code) for attempt in ended.attempts] == [(1, "Oops"), (2, "Oops")]


async def test_what_was_produced_elsewhere_is_registered(scene: Scene):
    """With the success that another executor writes, by the outputs that are where the ledger expects them."""
    task = spec()
    task.task_template.metadata.produces_artifacts = True
    declared = common_pb2.ProducedArtifact(output="o0", name="events", type=BLOB)
    outputs = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name="o0", value=file())], produced_artifacts=[declared])
    async with scene.mirror():
        await scene.world.run(task)
        await scene.is_handed_out()
        await scene.world.put(ROOT, "outputs.pb", outputs.SerializeToString())
        await scene.write({"conditions": [condition("Succeeded", "Completed")]})
        await scene.world.ended(ROOT)
    assert await scene.world.artifacts.known(ArtifactKey(ROOT.project, ROOT.domain, "events", "r1-a0-0")) is not None


async def test_what_another_executor_writes_while_the_database_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """Is taken in when that is back: it is not overwritten meanwhile by what the ledger says."""
    move, refused = scene.ledger.move, []

    async def at_second(*args: Any, **kwargs: Any) -> list[Action]:
        if not refused:
            refused.append(args)
            raise Unavailable("the database is away")
        return await move(*args, **kwargs)

    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        monkeypatch.setattr(scene.ledger, "move", at_second)
        await scene.write({"conditions": [condition("Succeeded", "Completed")]})
        async with asyncio.timeout(20):
            assert (await scene.world.ended(ROOT)).action.phase is Phase.SUCCEEDED
    assert len(refused) == 1


async def test_what_may_not_be_is_overwritten_from_the_ledger(scene: Scene):
    """A step back, an attempt that is over; whatever else they wrote stays theirs."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
        await scene.write({"pluginState": "AAAA", "conditions": [condition("Progressing", "Queued")]})
        await scene.until(lambda: len(scene.versions[order_name(ROOT)]) >= 4)
        assert (await scene.says("Executing"))["status"]["pluginState"] == "AAAA"
        error = execution_pb2.ExecutionError(code="x", message="x")
        await scene.ledger.move(ROOT, Retry(attempt=1, error=error, failure=Failure.USER), Move(to=Phase.INITIALIZING))
        await scene.says("Initializing")
        await scene.write({"attempts": 1, "conditions": [condition("Succeeded", "Completed")]})
        await scene.until(lambda: scene.versions[order_name(ROOT)][-1]["status"]["conditions"][0]["reason"] == "Completed")
        order = await scene.says("Initializing")
    assert order["status"]["attempts"] == 2
    assert (await scene.ledger.action(ROOT)).phase is Phase.INITIALIZING


async def test_a_restart_takes_no_echo_for_news(scene: Scene):
    """A status that an earlier server wrote is known by its digest, however old, and brought up to date."""
    async with scene.mirror():
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.INITIALIZING)
        await scene.says("Initializing")
    await scene.move(Phase.WAITING_FOR_RESOURCES)  # from where INITIALIZING would be legal again
    before = await scene.ledger.action(ROOT)
    async with scene.mirror():
        await scene.says("Queued")
    assert await scene.ledger.action(ROOT) == before


async def test_a_signal_on_the_resource_ends_a_condition(scene: Scene):
    """If it is of the condition's type; another is taken away again."""
    async with scene.mirror():
        await scene.world.run()
        key = await scene.condition("approve")
        await scene.says("Paused", key)
        number = literals_pb2.Literal()
        number.scalar.primitive.integer = 1
        wrong = base64.b64encode(number.SerializeToString()).decode()
        await scene.write({"signalValue": wrong, "signalledBy": "eve"}, key)
        await scene.until(lambda: "signalValue" in scene.versions[order_name(key)][-1]["status"])
        await scene.until(lambda: "signalValue" not in scene.versions[order_name(key)][-1]["status"])
        await scene.write({"signalValue": signal(True), "signalledBy": "ann", "signalledAt": "2026-01-01T00:00:00Z"}, key)
        order = await scene.says("Signaled", key)
    ended = await scene.ledger.action(key)
    assert (ended.phase, ended.principal) == (Phase.SUCCEEDED, "ann")
    assert order["status"]["signalValue"] == base64.b64encode(ended.value or b"").decode() == signal(True)


async def test_who_deletes_the_resource_aborts_the_action(scene: Scene):
    """With all below it; the resources go when their ends are told."""
    async with scene.mirror():
        await scene.world.run()
        child = await scene.world.child("child")
        await scene.is_handed_out(child)
        await scene.kube.delete(TASK_ACTIONS, order_name(ROOT), namespace=scene.namespace)
        ended = await scene.world.ended(ROOT)
        await scene.until(lambda: scene.order() is None and scene.order(child) is None)
    assert ended.action.phase is Phase.ABORTED
    assert ended.action.reason == f"its TaskAction {scene.namespace}/{order_name(ROOT)} was deleted"
    assert (await scene.ledger.action(child)).phase is Phase.ABORTED
    assert scene.versions[order_name(child)][-1]["status"]["conditions"][0]["reason"] == "Aborted"


async def test_an_aborted_action_takes_its_resource_along(scene: Scene):
    """At once: nobody waits for it any more."""
    async with scene.mirror(ttl=3600.0):
        await scene.world.run()
        await scene.is_handed_out()
        await scene.world.abort(ROOT)
        await scene.until(lambda: scene.order() is None)
    last = scene.versions[order_name(ROOT)][-1]
    assert [one["reason"] for one in last["status"]["conditions"]] == ["Aborted", "Aborted"]
    assert last["status"]["conditions"][0]["message"] == "enough"


async def test_a_resource_that_is_lost_is_made_again(scene: Scene):
    """It says what the ledger says; children, which the cluster deletes as orphans, are made again too, and not aborted."""
    async with scene.mirror() as mirror:
        await scene.world.run()
        child = await scene.world.child("child")
        await scene.is_handed_out(child)
        await scene.move(Phase.RUNNING)
        await scene.says("Executing")
        before = (await scene.ordered())["metadata"]["uid"]
        orphan = (await scene.ordered(child))["metadata"]["uid"]
        await scene.lose()
        await scene.until(lambda: scene.reason() == "Executing" and (scene.order() or {})["metadata"]["uid"] != before)
        with suppress(Missing, Conflict):  # the cluster's collector does it, where there is one
            await scene.kube.delete(TASK_ACTIONS, order_name(child), namespace=scene.namespace, uid=orphan)
        await scene.until(lambda: (order := scene.order(child)) and order["metadata"]["uid"] != orphan)
        owner = mirror.owner(ROOT)
        made = await scene.ordered(child)
    assert made["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
    assert not (await scene.ledger.action(child)).terminal


async def test_a_restart_makes_good_what_was_lost_meanwhile(scene: Scene):
    """Orders, statuses, ends and deletions; what has begun is handed out at once."""
    async with scene.mirror():
        await scene.world.run()
        keys = [await scene.world.child(f"c{number}") for number in range(6)]
        for key in keys:
            await scene.is_handed_out(key)
    for key in keys[:3]:
        await scene.lose(key)
    await scene.move(Phase.RUNNING, key=keys[0])
    await scene.move(Phase.RUNNING, Phase.SUCCEEDED, key=keys[3])
    await scene.world.abort(keys[4])
    await scene.kube.delete(TASK_ACTIONS, order_name(keys[5]), namespace=scene.namespace)
    scene.handed_out.clear()
    async with scene.mirror(ttl=3600.0):
        for key in keys[:3]:
            await scene.ordered(key)
        await scene.is_handed_out(keys[0], Phase.RUNNING)
        await scene.is_handed_out(keys[1])
        await scene.says("Executing", keys[0])
        await scene.says("Completed", keys[3])
        await scene.until(lambda: scene.order(keys[4]) is None and scene.order(keys[5]) is None)
    assert keys[3] not in scene.handed_out
    assert (await scene.ledger.action(keys[5])).phase is Phase.ABORTED


async def test_what_an_earlier_server_let_go_is_collected(scene: Scene):
    """Each at the end of its own time; history stays."""
    async with scene.mirror(ttl=3600.0):
        await scene.world.run()
        await scene.is_handed_out()
        await scene.move(Phase.RUNNING, Phase.SUCCEEDED)
        await scene.until(lambda: not (scene.order() or {"metadata": {"finalizers": 1}})["metadata"].get("finalizers"))
    async with scene.mirror(ttl=0.0):
        await scene.until(lambda: scene.order() is None)
    assert (await scene.ledger.details(ROOT)).attempts[0].phase == Phase.SUCCEEDED


async def test_what_is_not_ours_is_left_alone(scene: Scene):
    """Another manager's, with another rule for names, and one whose run we do not know; each is said once."""
    fields = {"project": "p", "domain": "development", "runName": "other", "actionName": "a0"}
    for name in ("other-a0", "p.development.other.a0"):
        labels = {"flyte.org/termination-status": "terminated", "flyte.org/completed-time": "2020-01-01.00-00"}
        for suffix, more in (("", {}), ("x", {"labels": labels})):
            meta: dict[str, Any] = {"name": name + suffix, "namespace": scene.namespace, "finalizers": [FINALIZER], **more}
            obj = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": meta, "spec": fields}
            await scene.kube.create(TASK_ACTIONS, obj)
    with capture_logs() as logs:
        async with scene.mirror(ttl=0.0):
            await scene.world.run()
            await scene.is_handed_out()
            await scene.kube.patch(TASK_ACTIONS, "other-a0", {"spec": {"group": "g"}}, namespace=scene.namespace)
            await scene.move(Phase.RUNNING, Phase.SUCCEEDED)
            await scene.until(lambda: scene.order() is None)
            names = {obj["metadata"]["name"] for obj in scene.orders}
    assert names == {"other-a0", "other-a0x", "p.development.other.a0", "p.development.other.a0x"}
    assert sorted(log["name"] for log in logs if "left alone" in log["event"]) == ["other-a0", "p.development.other.a0"]
    for name in names:
        left = await scene.kube.get(TASK_ACTIONS, name, namespace=scene.namespace)
        assert "status" not in left
        await scene.kube.patch(TASK_ACTIONS, name, {"metadata": {"finalizers": None}}, namespace=scene.namespace)


async def test_what_is_too_large_goes_to_the_store(scene: Scene):
    """A task of a megabyte has an order like any other; what several have in common is stored once."""
    large = spec()
    large.task_template.container.env.add(key="X", value="x" * (1 << 20))
    async with scene.mirror():
        await scene.world.run(large)
        child = await scene.world.child("child", task=large)
        root, below = await scene.ordered(), await scene.ordered(child)
    uri = root["spec"]["taskTemplateUri"]
    assert "taskTemplate" not in root["spec"]
    assert below["spec"]["taskTemplateUri"] == uri
    assert tasks_pb2.TaskTemplate.FromString(await scene.world.store.get(uri)) == large.task_template


async def test_a_leader_that_was_writes_nothing(scene: Scene):
    """A foreign write that it would take in is refused, and its term is over."""
    await scene.ledger.take_lead(EXECUTOR, 7, "another")
    await scene.world.run()
    async with scene.mirror(epoch=6):
        await scene.is_handed_out()
        await scene.write({"attempts": 1, "conditions": [condition("Progressing", "Executing")]})
        await scene.until(lambda: scene.deposed)
    assert (await scene.ledger.action(ROOT)).phase is Phase.QUEUED


async def test_the_definition_keeps_what_it_names_and_nothing_else(scene: Scene):
    """What another executor notes is kept; what nobody defined is dropped, and what is no phase of a condition refused."""
    spec_fields = {"project": "p", "domain": "d", "runName": "r", "actionName": "a0", "envVars": {"A": "1"}, "whatever": 1}
    meta = {"name": "p.d.r.a0", "namespace": scene.namespace}
    await scene.kube.create(
        TASK_ACTIONS, {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": meta, "spec": spec_fields}
    )
    status = {"pluginState": "AAAA", "pluginPhaseVersion": 3, "whatever": 1, "conditions": [condition("Progressing", "Queued")]}
    after = await scene.kube.patch(
        TASK_ACTIONS, "p.d.r.a0", {"status": status}, namespace=scene.namespace, subresource="status"
    )
    assert after["spec"] == {name: value for name, value in spec_fields.items() if name != "whatever"}
    assert after["status"] == {name: value for name, value in status.items() if name != "whatever"}
    wrong = {"status": {"conditions": [condition("Progressing", "Queued", "Maybe")]}}
    with pytest.raises(Invalid, match=r"status\.conditions\[0\]\.status"):
        await scene.kube.patch(TASK_ACTIONS, "p.d.r.a0", wrong, namespace=scene.namespace, subresource="status")
    with pytest.raises(Invalid, match="runName"):
        obj = {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": meta | {"name": "b"}}
        await scene.kube.create(TASK_ACTIONS, obj | {"spec": {"project": "p", "domain": "d", "actionName": "a0"}})
