"""What a pod tells of its attempt, from pods as an API server shows them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_unified.core.clock import Micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, State
from flyte_unified.plugins.pods import records
from flyte_unified.plugins.pods.config import Patience
from flyte_unified.plugins.pods.state import gone, state
from tests.unit.plugins.pod_objects import (
    IMAGE,
    SCHEDULED,
    UNSCHEDULABLE,
    at,
    condition,
    disrupted,
    ended,
    micros,
    pod,
    running,
    waiting,
)

LATER = micros(3000)
PATIENCE = Patience()


def seen(found: dict[str, Any], now: Micros = LATER, patience: Patience = PATIENCE) -> State:
    return state(found, now=now, config=patience)


def ending(found: dict[str, Any], now: Micros = LATER) -> Exit:
    told = seen(found, now).exit
    assert told is not None
    return told


def blamed(found: dict[str, Any], now: Micros = LATER) -> tuple[str, Failure, bool]:
    fault = ending(found, now).fault
    assert fault is not None
    return fault.code, fault.failure, fault.retryable


SYSTEM, USER = Failure.SYSTEM, Failure.USER
OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
OWN_VOLUME = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '
OWN_LAYER = 'Container primary exceeded its local ephemeral storage limit "1Gi". '
LOW_DISK = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. "
    "Container primary was using 20Gi, request is 0, has larger consumption of ephemeral-storage. "
)
GENTLE = ended(143, finished=65)
HARD = ended(137, finished=65)


@pytest.mark.parametrize(
    ("found", "phase", "since", "reason"),
    [
        (pod(phase="Pending", node="", conditions=[]), Phase.QUEUED, 0, ""),
        (pod(phase="Pending", node="", conditions=[UNSCHEDULABLE]), Phase.WAITING_FOR_RESOURCES, 1, "Insufficient cpu"),
        (
            pod(phase="Pending", node="", conditions=[condition("PodScheduled", "False", 2, "SchedulingGated", "by a queue")]),
            Phase.WAITING_FOR_RESOURCES,
            2,
            "SchedulingGated: by a queue",
        ),
        (pod(phase="Pending"), Phase.INITIALIZING, 1, ""),
        (pod(waiting("ContainerCreating"), phase="Pending"), Phase.INITIALIZING, 1, "ContainerCreating"),
        (pod(waiting("ErrImagePull", "not found"), phase="Pending"), Phase.INITIALIZING, 1, "not found"),
        (pod(waiting("RunContainerError", "runc"), phase="Pending"), Phase.INITIALIZING, 1, "RunContainerError"),
        (pod(waiting("NeverHeardOf"), phase="Pending"), Phase.INITIALIZING, 1, "NeverHeardOf"),
        (
            pod(waiting("PodInitializing"), phase="Pending", inits={"prepare": running(3)}),
            Phase.INITIALIZING,
            1,
            "",
        ),
        (pod(running(5)), Phase.RUNNING, 5, ""),
        (pod(running(5), phase="Pending", others={"proxy": waiting("ImagePullBackOff")}), Phase.RUNNING, 5, ""),
        (pod(running(5), others={"proxy": ended(1)}), Phase.RUNNING, 5, ""),
        (pod(running(5), phase="Unknown"), Phase.RUNNING, 5, ""),
        (pod(waiting("ContainerCreating"), phase="Running", sidecars={"mesh": running(3)}), Phase.INITIALIZING, 1, "Creating"),
        (
            pod(waiting("PodInitializing"), phase="Pending", sidecars={"mesh": waiting("CrashLoopBackOff")}),
            Phase.INITIALIZING,
            1,
            "CrashLoop",
        ),
    ],
)
def test_a_pod_that_goes_on(found: dict[str, Any], phase: Phase, since: int, reason: str):
    """How far it is and why it is no further; nothing that may still pass is a failure, nor is what nobody knows."""
    told = seen(found)
    assert (told.phase, told.since, told.exit) == (phase, micros(since), None)
    assert reason in told.reason


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (ended(0), Exit(code=0)),
        (ended(1), Exit(code=1)),
        (ended(42, message="last words"), Exit(code=42)),
        (ended(137, "OOMKilled"), Exit(code=137, signal=9, out_of_memory=True)),
        (ended(1, "OOMKilled"), Exit(code=1, out_of_memory=True)),
        (ended(137), Exit(code=137, signal=9)),
        (ended(247), Exit(code=247, signal=9)),
        (ended(139), Exit(code=139, signal=11)),
        (ended(255), Exit(code=255)),
    ],
)
@pytest.mark.parametrize(
    "around",
    [
        {"phase": "Running", "others": {"proxy": running()}},
        {"phase": "Pending", "others": {"proxy": waiting("ErrImagePull")}},
        {"phase": "Failed"},
        {"phase": "Failed", "others": {"proxy": ended(137, "OOMKilled")}},
        {"phase": "Running", "conditions": [SCHEDULED, disrupted("EvictionByEvictionAPI", 66)]},
        {"phase": "Failed", "deleted": 200, "grace": 30},
    ],
)
def test_an_end_is_the_same_whenever_it_is_seen(main: dict[str, Any], expected: Exit, around: dict[str, Any]):
    """While sidecars run, when the pod is over, and when something befell the pod afterwards. Its files say the rest."""
    told = seen(pod(main, **around))
    assert told.exit == expected
    assert (told.phase, told.since) == (Phase.RUNNING, micros(65))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod(GENTLE, phase="Failed", reason="Evicted", message=LOW_DISK), ("Evicted", SYSTEM, True)),
        (pod(HARD, phase="Failed", reason="Evicted", message=OWN_DISK), ("EphemeralStorageExceeded", USER, True)),
        (pod(HARD, phase="Failed", reason="Evicted", message=OWN_VOLUME), ("EphemeralStorageExceeded", USER, True)),
        (pod(HARD, phase="Failed", reason="Evicted", message=OWN_LAYER), ("EphemeralStorageExceeded", USER, True)),
        (pod(phase="Failed", reason="Evicted", message=LOW_DISK), ("Evicted", SYSTEM, True)),
        (pod(HARD, conditions=[SCHEDULED, disrupted("PreemptionByScheduler")]), ("Preempted", SYSTEM, True)),
        (pod(ended(1), conditions=[SCHEDULED, disrupted("PreemptionByScheduler", 60)]), ("Preempted", SYSTEM, True)),
        (pod(GENTLE, conditions=[SCHEDULED, disrupted("EvictionByEvictionAPI")], deleted=90), ("Evicted", SYSTEM, True)),
        (pod(HARD, conditions=[SCHEDULED, disrupted("DeletionByTaintManager")]), ("TaintEviction", SYSTEM, True)),
        (pod(running(), phase="Failed", conditions=[disrupted("DeletionByPodGC")]), ("NodeLost", SYSTEM, True)),
        (pod(GENTLE, phase="Failed", conditions=[disrupted("TerminationByKubelet")]), ("NodeShutdown", SYSTEM, True)),
        (pod(GENTLE, phase="Failed", conditions=[disrupted("SomethingNew")]), ("Disrupted", SYSTEM, True)),
        (pod(HARD, phase="Failed", reason="Terminated", message="node shutdown"), ("NodeShutdown", SYSTEM, True)),
        (pod(phase="Failed", reason="Shutdown", message="not admitting"), ("NodeShutdown", SYSTEM, True)),
        (pod(phase="Failed", reason="NodeShutdown"), ("NodeShutdown", SYSTEM, True)),
        (pod(phase="Failed", reason="NodeAffinity", message="no label"), ("NodeAffinity", SYSTEM, True)),
        (pod(phase="Failed", reason="Preempting", message="critical pod"), ("Preempted", SYSTEM, True)),
        (pod(phase="Failed", reason="UnexpectedAdmissionError", message="gpu"), ("UnexpectedAdmissionError", SYSTEM, True)),
        (pod(phase="Failed", reason="OutOfcpu", message="no cpu"), ("OutOfcpu", SYSTEM, True)),
        (pod(GENTLE, phase="Failed", reason="DeadlineExceeded", message="active too long"), ("DeadlineExceeded", SYSTEM, True)),
        (pod(running(), phase="Failed", reason="NodeLost", message="unresponsive"), ("NodeLost", SYSTEM, True)),
        (pod(ended(137, "ContainerStatusUnknown", started=None), phase="Failed"), ("ContainerLost", SYSTEM, True)),
        (pod(GENTLE, deleted=90, grace=30), ("PodDeleted", SYSTEM, True)),
        (pod(phase="Pending", node="", conditions=[UNSCHEDULABLE], deleted=90), ("PodDeleted", SYSTEM, True)),
        (pod(phase="Failed"), ("PodFailed", SYSTEM, True)),
        (pod(running(), phase="Running", primary="other"), ("PrimaryContainerNotFound", USER, False)),
    ],
)
def test_what_befell_a_pod_explains_its_end(found: dict[str, Any], expected: tuple[str, Failure, bool]):
    """Each cause has a code of its own, and is the system's unless the task used more than its own limits."""
    assert blamed(found) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('exec: "a0": executable file not found in $PATH: unknown', ("ContainerCannotRun", USER, False)),
        ("exec /bin/a0: exec format error", ("ContainerCannotRun", USER, False)),
        ("failed to create shim task: context deadline exceeded", ("ContainerCannotRun", SYSTEM, True)),
    ],
)
def test_a_container_that_could_not_be_started(message: str, expected: tuple[str, Failure, bool]):
    """A program that isn't there won't be there next time; a runtime that is too busy may have time then."""
    found = pod(ended(128, "StartError", message), phase="Failed")
    found["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    assert blamed(found) == expected
    assert seen(found).phase is Phase.INITIALIZING
    assert records.started_at(found) is None


@pytest.mark.parametrize(
    ("reason", "message", "grace", "expected"),
    [
        ("ImagePullBackOff", 'Back-off pulling image "x": not found', 180, ("ImagePullBackOff", USER, True)),
        ("ImagePullBackOff", "Back-off: 429 Too Many Requests", 180, ("ImagePullBackOff", SYSTEM, True)),
        ("ImagePullBackOff", "toomanyrequests: You have reached your pull rate limit", 180, ("ImagePullBackOff", SYSTEM, True)),
        ("RegistryUnavailable", "no route", 180, ("RegistryUnavailable", SYSTEM, True)),
        ("ErrImageNeverPull", "not present with pull policy of Never", 180, ("ErrImageNeverPull", USER, True)),
        ("InvalidImageName", "couldn't parse image name", 0, ("InvalidImageName", USER, False)),
        ("CreateContainerConfigError", 'secret "gone" not found', 0, ("CreateContainerConfigError", USER, False)),
        (
            "CreateContainerConfigError",
            "failed to sync secret cache: timed out",
            180,
            ("CreateContainerConfigError", SYSTEM, True),
        ),
        ("CreateContainerError", "no command specified", 180, ("CreateContainerError", USER, False)),
        ("CreateContainerError", "context deadline exceeded", 180, ("CreateContainerError", SYSTEM, True)),
    ],
)
@pytest.mark.parametrize("where", ["primary", "init"])
def test_trouble_before_the_start_has_its_grace(
    where: str, reason: str, message: str, grace: int, expected: tuple[str, Failure, bool]
):
    """Counted from scheduling. Until then the pod is initializing, and says when to look again."""
    held = waiting(reason, message)
    found = (
        pod(held, phase="Pending")
        if where == "primary"
        else pod(waiting("PodInitializing"), phase="Pending", inits={"x": held})
    )
    if grace:
        early = seen(found, micros(grace))
        assert (early.phase, early.exit, early.again) == (Phase.INITIALIZING, None, micros(1 + grace))
        assert message in early.reason
    assert blamed(found, micros(1 + grace)) == expected
    assert message in seen(found, micros(1 + grace)).reason


def test_a_grace_begins_when_the_container_could_have():
    """Not while an init container still ran before it."""
    found = pod(waiting("ImagePullBackOff"), phase="Pending", inits={"slow": ended(0, started=2, finished=1000)})
    assert seen(found, micros(1100)).again == micros(1180)
    assert seen(found, micros(1180)).exit is not None


def test_a_missing_secret_is_told_by_the_variable_that_wants_it():
    """The author of a task knows its variables, not the cluster's objects."""
    wants = [{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "value"}}}, {"name": "X", "value": "1"}]
    fault = ending(pod(waiting("CreateContainerConfigError", 'secret "gone" not found'), phase="Pending", env=wants)).fault
    assert fault is not None
    assert 'secret "gone" not found' in fault.message
    assert fault.message.endswith("Secret 'gone' holds the value of API_KEY")
    other = "couldn't find key value in Secret flyte/gone"
    fault = ending(pod(waiting("CreateContainerConfigError", other), phase="Pending", env=wants)).fault
    assert fault is not None
    assert "API_KEY" in fault.message


def test_pending_may_have_an_end():
    """Off by default; with a bound, whatever holds the pod up."""
    patience = Patience(pending=600)
    for found in (
        pod(phase="Pending", node="", conditions=[UNSCHEDULABLE]),
        pod(waiting("ContainerCreating"), phase="Pending"),
    ):
        assert seen(found).again is None
        early = seen(found, micros(599), patience)
        assert (early.exit, early.again) == (None, micros(600))
        late = seen(found, micros(600), patience)
        assert late.exit is not None
        assert late.exit.fault is not None
        assert (late.exit.fault.code, late.exit.fault.failure) == ("PodPendingTimeout", SYSTEM)
        assert early.reason in late.reason
    assert seen(pod(running()), LATER, patience).exit is None


@pytest.mark.parametrize("phase", ["Pending", "Failed"])
@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (ended(1, message="no such table"), ("InitContainerFailed", USER, True)),
        (ended(137, "OOMKilled"), ("OOMKilled", USER, True)),
        (ended(137), ("InitContainerFailed", SYSTEM, True)),
        (ended(128, "StartError", "executable file not found", started=None), ("InitContainerFailed", USER, False)),
    ],
)
def test_an_init_container_that_failed(phase: str, init: dict[str, Any], expected: tuple[str, Failure, bool]):
    """The same before and after the pod is said to have failed; its words are passed on."""
    found = pod(waiting("PodInitializing"), phase=phase, inits={"prepare": init})
    assert blamed(found) == expected
    assert init["terminated"].get("message", "memory" if "OOM" in expected[0] else "") in seen(found).reason


def test_our_own_init_container_is_the_system():
    """Unless it left an error.pb, which is read before."""
    found = pod(waiting("PodInitializing"), phase="Failed", inits={"flyte-data-download": ended(1, message="no bucket")})
    assert blamed(found) == ("InitContainerFailed", SYSTEM, True)


def test_a_deleted_pod_whose_node_is_silent_is_lost_after_a_while():
    """It may still run there: it is given its grace and more."""
    found = pod(running(), deleted=90)
    early = seen(found, micros(209))
    assert (early.phase, early.exit, early.again) == (Phase.RUNNING, None, micros(210))
    assert blamed(found, micros(210)) == ("NodeLost", SYSTEM, True)


def test_a_pod_that_is_gone():
    """Nobody saw the end, and it isn't the task's fault."""
    told = gone(now=LATER)
    assert told.exit is not None
    assert told.exit.fault is not None
    assert (told.exit.fault.code, told.exit.fault.failure, told.exit.fault.retryable) == ("PodDeleted", SYSTEM, True)


RAW = {"flyte.org/uploader": "flyte-data-upload"}


def beside(main: dict[str, Any], uploader: dict[str, Any], phase: str = "Running", **more: Any) -> dict[str, Any]:
    return pod(main, phase=phase, sidecars={"flyte-data-upload": uploader}, annotations=RAW, **more)


def test_outputs_are_waited_for():
    """An image without a runtime of Flyte's has not ended before its outputs are stored."""
    told = seen(beside(ended(0), running(2)))
    assert (told.phase, told.exit, told.since) == (Phase.RUNNING, None, micros(5))
    assert "stored" in told.reason
    assert seen(beside(ended(0), ended(0))).exit == Exit(code=0)
    assert seen(beside(ended(0), running(2), "Succeeded")).exit == Exit(code=0)
    assert blamed(beside(ended(0), ended(1, message="no bucket"))) == ("OutputUploadFailed", SYSTEM, True)
    held = beside(ended(0), running(2), deleted=100)
    assert seen(held, micros(100)).again == micros(220)
    assert seen(held, micros(220)).exit == Exit(code=0)


@pytest.mark.parametrize(
    ("main", "more", "expected"),
    [
        (ended(3, message="bad argument"), {}, ("ContainerExited", USER, True)),
        (ended(137, "OOMKilled"), {}, ("OOMKilled", USER, True)),
        (ended(137), {}, ("Interrupted", SYSTEM, True)),
        (GENTLE, {"conditions": [disrupted("PreemptionByScheduler")]}, ("Preempted", SYSTEM, True)),
    ],
)
@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_without_a_runtime_the_exit_code_decides(
    phase: str, main: dict[str, Any], more: dict[str, Any], expected: tuple[str, Failure, bool]
):
    """Outputs that our container stored after such an end are no success."""
    found = beside(main, ended(0), phase, **more)
    assert blamed(found) == expected
    fault = ending(found).fault
    assert fault is not None
    assert fault.certain


def test_outputs_stored_when_a_pod_is_given_up_are_no_success():
    """Our container stores what it finds when it is told to end, also for an image that never came."""
    found = beside(waiting("InvalidImageName"), running(2), "Pending")
    fault = ending(found).fault
    assert fault is not None
    assert (fault.code, fault.certain) == ("InvalidImageName", True)


TEXTS = st.text(max_size=8) | st.sampled_from(["\ud800", at(3), "0001-01-01T00:00:00+14:00"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PHASES = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"])
NAMES = st.sampled_from(["primary", "x"])


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON that may have these fields, as they should be or not; or that is something else altogether."""
    return JSON | st.fixed_dictionaries({}, optional={name: strategy | JSON for name, strategy in fields.items()})


ENDS = objects(reason=TEXTS, message=TEXTS, exitCode=st.integers(), signal=st.integers(), startedAt=TEXTS, finishedAt=TEXTS)
STATUSES = st.lists(objects(name=NAMES, started=JSON, state=objects(waiting=ENDS, running=ENDS, terminated=ENDS)))
PODS = st.fixed_dictionaries(
    {
        "metadata": objects(name=TEXTS, deletionTimestamp=TEXTS, deletionGracePeriodSeconds=JSON, annotations=JSON),
        "spec": objects(nodeName=TEXTS, containers=st.lists(objects(name=NAMES, env=JSON)), initContainers=STATUSES),
        "status": objects(
            phase=PHASES,
            reason=TEXTS,
            conditions=st.lists(objects(type=TEXTS, status=TEXTS, reason=TEXTS)),
            containerStatuses=STATUSES,
            initContainerStatuses=STATUSES,
        ),
    }
)


@given(found=PODS, now=st.integers(0, 1 << 51))
@settings(max_examples=150, deadline=None)
def test_no_pod_makes_a_reader_stumble(found: dict[str, Any], now: int):
    """Whatever stands in it: there is a state, it can be recorded, and it is the same when asked again."""
    told = state(found, now=Micros(now), config=Patience(pending=60))
    assert told == state(found, now=Micros(now), config=Patience(pending=60))
    records.details(found).SerializeToString()
    records.started_at(found)


@given(
    event=JSON | st.dictionaries(st.sampled_from(["message", "reason", "type", "count", "series", "source", "eventTime"]), JSON)
)
@settings(max_examples=100, deadline=None)
def test_no_event_does_either(event: Any):
    """The same for events."""
    told = records.cluster_event(event if isinstance(event, dict) else {})
    assert told is None or told.SerializeToString()


def test_the_record_of_a_pod():
    """Every container with its times; the primary one first, though the spec may have it elsewhere."""
    found = pod(ended(0), others={"proxy": running(4)}, inits={"prepare": ended(0, started=2, finished=3)})
    found["spec"]["containers"].reverse()
    context = records.details(found).log_context
    (told,) = context.pods
    assert context.primary_pod_name == told.pod_name == "r1-a0-0-abc123"
    assert (told.namespace, told.primary_container_name) == ("flyte", "primary")
    assert [c.container_name for c in (*told.containers, *told.init_containers)] == ["primary", "proxy", "prepare"]
    assert told.containers[0].process.container_start_time.ToJsonString() == at(5)
    assert told.containers[0].process.container_end_time.ToJsonString() == at(65)
    assert not told.containers[1].process.HasField("container_end_time")
    assert records.details(found).logs_available
    assert not records.details(pod(waiting("ContainerCreating"))).logs_available
    assert records.started_at(found) == micros(5)
    assert records.started_at(pod(phase="Pending")) is None
    assert found["spec"]["containers"][0]["name"] == "proxy"
    assert IMAGE in seen(pod(waiting("InvalidImageName"), phase="Pending")).reason


def test_the_cluster_s_events():
    """Both generations of them; one that says nothing is none."""
    told = records.cluster_event(
        {
            "message": "Back-off pulling image",
            "reason": "BackOff",
            "type": "Warning",
            "count": 7,
            "firstTimestamp": at(3),
            "lastTimestamp": at(300),
            "source": {"component": "kubelet"},
        }
    )
    assert told is not None
    assert (told.message, told.reason, told.count, told.source_component) == ("Back-off pulling image", "BackOff", 7, "kubelet")
    assert told.type == told.TYPE_WARNING
    assert told.occurred_at.ToJsonString() == at(3)
    newer = records.cluster_event(
        {
            "note": "no nodes",
            "reason": "FailedScheduling",
            "type": "Normal",
            "eventTime": at(4).replace("Z", ".123456Z"),
            "reportingComponent": "default-scheduler",
            "series": {"count": 3},
        }
    )
    assert newer is not None
    assert (newer.message, newer.count, newer.source_component) == ("no nodes", 3, "default-scheduler")
    assert newer.occurred_at.ToMicroseconds() == micros(4) + 123456
    assert records.cluster_event({"type": "Normal"}) is None
