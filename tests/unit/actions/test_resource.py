"""Actions as TaskActions and back: tables of what is said and of what it means."""

from __future__ import annotations

import base64
import random
from typing import Any

import orjson
import pytest
from flyteidl2.core import execution_pb2, literals_pb2, types_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.actions import resource
from flyte_unified.actions.resource import FINALIZER, Do, Order, Patch, Tell
from flyte_unified.actions.status import Error, Told, moves, read_status, status_of
from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.names import order_name
from flyte_unified.core.phases import TERMINAL, Phase, legal
from flyte_unified.ledger.api import Action, ActionType, Failure, Move, Retry, record_of

KEY = ActionKey("p", "development", "r1", "a0")
AT = Micros(1_700_000_000 * SECOND)
LIVE = [Phase.QUEUED, Phase.WAITING_FOR_RESOURCES, Phase.INITIALIZING, Phase.RUNNING, Phase.PAUSED]


def action(phase: Phase = Phase.QUEUED, **fields: Any) -> Action:
    values: dict[str, Any] = {
        "key": KEY,
        "parent": None,
        "depth": 0,
        "action_type": ActionType.TASK,
        "phase": phase,
        "created_at": AT,
        "updated_at": AT,
        "ended_at": AT if phase.terminal else None,
        "output_base": "s3://bucket/r1",
        "record": record_of((Phase.QUEUED, AT), *([] if phase is Phase.QUEUED else [(phase, AT)])).SerializeToString(),
    }
    return Action(**values | fields)


def condition(**fields: Any) -> Action:
    spec = run_definition_pb2.ConditionAction(name="ok", type=types_pb2.LiteralType(simple=types_pb2.BOOLEAN))
    return action(Phase.PAUSED, action_type=ActionType.CONDITION, spec=spec.SerializeToString(), **fields)


def order(status: Any = None, **metadata: Any) -> Order:
    meta = {"name": order_name(KEY), "namespace": "flyte", "uid": "u1", "resourceVersion": "5", "finalizers": [FINALIZER]}
    spec = {"project": KEY.project, "domain": KEY.domain, "runName": KEY.run, "actionName": KEY.name}
    return resource.read_order({"metadata": meta | metadata, "spec": spec, "status": status})


def told_by(row: Action) -> Order:
    """The order after our own write."""
    return order(status_of(row))


def is_quiet(row: Action, seen: Order) -> bool:
    return resource.next_step(row, seen) is Do.REST


@pytest.mark.parametrize(
    ("phase", "conditions"),
    [
        (Phase.QUEUED, [("Progressing", "True", "Queued")]),
        (Phase.WAITING_FOR_RESOURCES, [("Progressing", "True", "Queued")]),
        (Phase.INITIALIZING, [("Progressing", "True", "Initializing")]),
        (Phase.RUNNING, [("Progressing", "True", "Executing")]),
        (Phase.PAUSED, [("Progressing", "True", "Paused")]),
        (Phase.SUCCEEDED, [("Progressing", "False", "Completed"), ("Succeeded", "True", "Completed")]),
        (Phase.RECOVERED, [("Progressing", "False", "Completed"), ("Succeeded", "True", "Completed")]),
        (Phase.FAILED, [("Progressing", "False", "PermanentFailure"), ("Failed", "True", "PermanentFailure")]),
        (Phase.TIMED_OUT, [("Progressing", "False", "TimedOut"), ("Failed", "True", "TimedOut")]),
        (Phase.ABORTED, [("Progressing", "False", "Aborted"), ("Failed", "True", "Aborted")]),
    ],
)
def test_each_phase_has_its_conditions(phase: Phase, conditions: list[tuple[str, str, str]]):
    """Flyte's, and what is read back is the phase again, as far as conditions can tell it."""
    status = status_of(action(phase))
    assert [(one["type"], one["status"], one["reason"]) for one in status["conditions"]] == conditions
    assert {one["lastTransitionTime"] for one in status["conditions"]} == {"2023-11-14T22:13:20Z"}
    twins = {Phase.WAITING_FOR_RESOURCES: Phase.QUEUED, Phase.RECOVERED: Phase.SUCCEEDED}
    assert read_status(status).phase is twins.get(phase, phase)


def test_an_order_without_a_status_is_queued_in_its_first_attempt():
    """So a new action costs no write of a status; in a later attempt it does."""
    assert is_quiet(action(), order())
    assert is_quiet(action(Phase.WAITING_FOR_RESOURCES), order())
    step = resource.next_step(action(attempt=2, system_failures=1), order())
    assert isinstance(step, Patch)
    assert {name: step.body["status"].get(name) for name in ("attempts", "systemFailures")} == {
        "attempts": 2,
        "systemFailures": 1,
    }


def test_a_patch_says_only_what_differs_and_of_which_version():
    """What no longer holds is taken away."""
    error = execution_pb2.ExecutionError(code="E", message="m", kind=execution_pb2.ExecutionError.USER).SerializeToString()
    seen = told_by(action(Phase.INITIALIZING, cache_status=1))
    step = resource.next_step(action(Phase.RUNNING, version=2, cache_status=1), seen)
    assert isinstance(step, Patch)
    assert step.subresource == "status"
    assert step.body["metadata"] == {"resourceVersion": "5"}
    assert set(step.body["status"]) == {"conditions", "phaseHistory", "recorded"}
    ended = resource.next_step(action(Phase.FAILED, version=3, cache_status=1, error=error), seen)
    assert isinstance(ended, Patch)
    assert ended.body["status"]["errorState"] == {"code": "E", "kind": "USER", "message": "m"}
    stale = told_by(action(Phase.FAILED, error=error))
    corrected = resource.next_step(action(Phase.SUCCEEDED), stale)
    assert isinstance(corrected, Patch)
    assert corrected.body["status"]["errorState"] is None


@pytest.mark.parametrize("now", LIVE)
@pytest.mark.parametrize("then", LIVE)
def test_what_we_wrote_ourselves_is_never_news(then: Phase, now: Phase):
    """However old it is, and however legal the way back would be."""
    step = resource.next_step(action(now, version=9), told_by(action(then)))
    assert step is Do.REST or isinstance(step, Patch)


@pytest.mark.parametrize("now", LIVE)
@pytest.mark.parametrize("written", [phase for phase in Phase if phase not in (Phase.UNSPECIFIED, Phase.RECOVERED)])
def test_what_another_writes_is_judged_by_the_table_of_moves(written: Phase, now: Phase):
    """A legal step is taken, whatever else is overwritten; waiting for resources is none that a condition tells."""
    status = status_of(action(written))
    del status["recorded"]
    step = resource.next_step(action(now), order(status))
    visible = Phase.QUEUED if written is Phase.WAITING_FOR_RESOURCES else written
    before = Phase.QUEUED if now is Phase.WAITING_FOR_RESOURCES else now
    if legal(now, visible) and visible is not before:
        assert isinstance(step, Tell)
        (move,) = step.steps
        assert isinstance(move, Move)
        assert (move.to, move.attempt) == (visible, 1)
        assert move.output_uri == ("s3://bucket/r1/a0/1" if visible is Phase.SUCCEEDED else "")
        assert resource.next_step(action(now), order(status), judged=True) != step
    else:
        assert isinstance(step, Patch)


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_nothing_is_news_of_an_action_that_has_ended(phase: Phase):
    """Terminal is final."""
    status = {"attempts": 7, "conditions": status_of(action(Phase.RUNNING))["conditions"]}
    step = resource.next_step(action(phase), order(status))
    assert isinstance(step, Patch)
    assert step.subresource == "status"


@pytest.mark.parametrize(
    ("told", "steps"),
    [
        (Told(attempt=2), ()),
        (Told(attempt=2, phase=Phase.QUEUED), ()),
        (Told(attempt=2, phase=Phase.UNSPECIFIED), ()),
        (Told(attempt=1, phase=Phase.SUCCEEDED), ()),
        (Told(attempt=103, phase=Phase.RUNNING), ()),
        (Told(attempt=2, cache_status=3), (Move(to=Phase.RUNNING, attempt=2, cache_status=3),)),
        (
            Told(attempt=3, error=Error(code="E", kind="SYSTEM", message="m")),
            (
                Retry(
                    attempt=2,
                    error=execution_pb2.ExecutionError(code="E", message="m", kind=execution_pb2.ExecutionError.SYSTEM),
                    failure=Failure.SYSTEM,
                ),
            ),
        ),
        (
            Told(attempt=2, phase=Phase.TIMED_OUT, error=Error(code="E", kind="USER", message="m")),
            (
                Move(
                    to=Phase.TIMED_OUT,
                    attempt=2,
                    error=execution_pb2.ExecutionError(code="E", message="m", kind=execution_pb2.ExecutionError.USER),
                ),
            ),
        ),
        (Told(attempt=2, phase=Phase.ABORTED), (Move(to=Phase.ABORTED, attempt=2, reason="aborted by another executor"),)),
    ],
)
def test_a_status_is_of_an_attempt(told: Told, steps: tuple[Move | Retry, ...]):
    """One that is over counts no more; one further on ends those before it, up to a bound."""
    assert moves(told, action(Phase.RUNNING, attempt=2)) == steps


def test_a_condition_ends_by_a_signal_of_its_type():
    """And by none of another type, nor by the claim that there was one."""
    literal = literals_pb2.Literal()
    literal.scalar.primitive.boolean = True
    raw = literal.SerializeToString(deterministic=True)
    signalled = Told(phase=Phase.PAUSED, signal=base64.b64encode(raw).decode(), signalled_by="ann")
    assert moves(signalled, condition()) == (Move(to=Phase.SUCCEEDED, value=raw, principal="ann"),)
    literal.scalar.primitive.integer = 1
    for signal in (base64.b64encode(literal.SerializeToString()).decode(), "AA==", "no base64", ""):
        assert moves(Told(phase=Phase.SUCCEEDED, signal=signal), condition()) == ()
    assert moves(Told(signal=signalled.signal), action(Phase.RUNNING)) == ()


def test_what_ended_is_told_then_marked_then_left():
    """Others' finalizers stay."""
    row = action(Phase.SUCCEEDED)
    step = resource.next_step(row, order(finalizers=["other/x", FINALIZER]))
    assert isinstance(step, Patch)
    assert step.subresource == "status"
    seen = order(status_of(row), finalizers=["other/x", FINALIZER])
    step = resource.next_step(row, seen)
    assert step == Patch(
        {
            "metadata": {
                "resourceVersion": "5",
                "finalizers": ["other/x"],
                "labels": {"flyte.org/termination-status": "terminated", "flyte.org/completed-time": "2023-11-14.22-13"},
            }
        }
    )
    labels = {"flyte.org/termination-status": "terminated", "flyte.org/completed-time": "2023-11-14.22-13"}
    last = order(status_of(row), finalizers=["other/x"], labels=labels)
    assert is_quiet(row, last)
    assert resource.completed_at(last) == AT - 20 * SECOND
    assert resource.completed_at(order(labels=labels | {"flyte.org/completed-time": "soon"})) is None


def test_who_deletes_an_order_aborts_unless_it_is_an_orphan():
    """The cluster deletes what belonged to an order that is lost: that one is let go, to be made anew."""
    owners = [{"kind": "TaskAction", "uid": "above"}]
    deleted = order(deletionTimestamp="2026-01-01T00:00:00Z", ownerReferences=owners)
    child = action(parent="a1")
    assert resource.next_step(child, deleted, parent="above") is Do.ABORT
    for other in ("", "another"):
        assert resource.next_step(child, deleted, parent=other) == Patch(
            {"metadata": {"resourceVersion": "5", "finalizers": None}}
        )
    released = order(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["other/x"])
    assert resource.next_step(child, released) is Do.REST
    assert resource.next_step(child, None) is Do.CREATE
    assert resource.next_step(action(Phase.ABORTED), None) is Do.REST


def test_a_run_says_labels_annotations_and_environment_of_its_orders():
    """What Kubernetes would refuse is left out, and nobody writes over Flyte's own."""
    run_spec = run_pb2.RunSpec()
    chosen = {"team": "a", "x.org/y": "", "flyte.org/run": "no", "sp ace": "x", "v": "no value!", "long": "x" * 64, "-x": ""}
    run_spec.labels.values.update(chosen)
    run_spec.annotations.values.update({"note": "any text, at all", "Bad/Bad/x": "x"})
    run_spec.envs.values.add(key="A", value="1")
    run_spec.interruptible.value = False
    obj, outside = resource.new_order(action(), run_spec, task_definition_pb2.TaskSpec(), namespace="flyte")
    labels = obj["metadata"]["labels"]
    assert {name: value for name, value in labels.items() if not name.startswith("flyte.org/")} == {"team": "a", "x.org/y": ""}
    assert labels["flyte.org/run"] == "r1"
    assert obj["metadata"]["annotations"] == {"note": "any text, at all"}
    assert (obj["spec"]["envVars"], obj["spec"]["interruptible"], outside) == ({"A": "1"}, False, {})


def test_the_largest_parts_leave_an_order_that_is_too_large():
    """Until the rest fits; each says where it is."""
    run_spec = run_pb2.RunSpec()
    for number in range(3):
        run_spec.envs.values.add(key=f"A{number}", value="x" * 100_000)
    run_spec.annotations.values["much"] = "x" * 300_000
    task = task_definition_pb2.TaskSpec()
    task.task_template.custom["x"] = random.Random(1).randbytes(200_000).hex()
    obj, outside = resource.new_order(action(), run_spec, task, namespace="flyte")
    assert "taskTemplate" not in obj["spec"]
    assert set(outside) == {obj["spec"]["taskTemplateUri"]}
    assert obj["spec"]["taskTemplateUri"].startswith("s3://bucket/r1/_orders/")
    assert len(orjson.dumps(obj)) < 1 << 20
    for number in range(3, 9):
        run_spec.envs.values.add(key=f"A{number}", value="x" * 100_000)
    obj, outside = resource.new_order(action(), run_spec, task, namespace="flyte")
    assert len(orjson.loads(outside[obj["spec"]["envVarsUri"]])) == 9
    assert len(orjson.dumps(obj)) < 1 << 20
