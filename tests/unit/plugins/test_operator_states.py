"""What operators' resources tell of their attempts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from flyteidl2.core import execution_pb2
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import Kind
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, State
from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.operators.kinds import (
    DASK_JOB,
    JOB_SET,
    MPI_JOB,
    NAME_LIMITS,
    PYTORCH_JOB,
    RAY_JOB,
    RESOURCE_NAME_LIMIT,
    SPARK_APPLICATION,
    TF_JOB,
)
from flyte_unified.plugins.operators.operators import Operators
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import PodConfig
from tests.unit.plugins.operator_objects import NAME, condition, dask, jobset, ray, resource, spark, training
from tests.unit.plugins.pod_objects import micros

CONFIG = OperatorConfig(
    spark_history="https://history.example.com/{{.sparkApplicationID}}",
    dask_dashboard="https://dask.example.com/{{.namespace}}/{{.name}}/status",
)
READERS = Operators(Pods(PodConfig()), CONFIG).readers

QUEUED, WAITING, INITIALIZING, RUNNING = (
    Phase.QUEUED,
    Phase.WAITING_FOR_RESOURCES,
    Phase.INITIALIZING,
    Phase.RUNNING,
)
CREATED = condition("Created", 1, "PyTorchJobCreated", "PyTorchJob is created.")


class Going(NamedTuple):
    """A state without an end: its phase, since when, and something that it says."""

    phase: Phase
    seconds: int | None = None
    says: str = ""


PROGRESS: list[tuple[str, Kind, dict[str, Any], Going]] = [
    ("spark unseen", SPARK_APPLICATION, resource(None), Going(QUEUED, 0)),
    ("spark new", SPARK_APPLICATION, spark("", attempts=0), Going(QUEUED, 0)),
    ("spark submitted", SPARK_APPLICATION, spark("SUBMITTED"), Going(INITIALIZING, 10, "SUBMITTED")),
    ("spark of an older operator", SPARK_APPLICATION, spark("PENDING_SUBMISSION"), Going(INITIALIZING, 10)),
    ("spark suspended", SPARK_APPLICATION, spark("SUSPENDED"), Going(WAITING, 10)),
    ("spark suspending", SPARK_APPLICATION, spark("SUSPENDING"), Going(WAITING, 10)),
    ("spark resuming", SPARK_APPLICATION, spark("RESUMING"), Going(INITIALIZING, 10)),
    ("spark runs", SPARK_APPLICATION, spark("RUNNING"), Going(RUNNING, 10)),
    ("spark about to succeed", SPARK_APPLICATION, spark("SUCCEEDING"), Going(RUNNING, 10)),
    ("spark about to fail", SPARK_APPLICATION, spark("FAILING", "driver"), Going(RUNNING, 10, "FAILING: driver")),
    ("spark again", SPARK_APPLICATION, spark("PENDING_RERUN"), Going(RUNNING, 10)),
    ("spark changed", SPARK_APPLICATION, spark("INVALIDATING"), Going(RUNNING, 10)),
    ("spark unknown", SPARK_APPLICATION, spark("UNKNOWN"), Going(RUNNING, 10)),
    ("spark of the future", SPARK_APPLICATION, spark("REFLECTING"), Going(RUNNING, 10)),
    ("ray unseen", RAY_JOB, resource(None), Going(QUEUED, 0)),
    ("ray initializing", RAY_JOB, ray("Initializing"), Going(INITIALIZING, 3, "Initializing: ready")),
    (
        "ray without its head",
        RAY_JOB,
        ray(
            "Initializing",
            rayClusterStatus={"conditions": [condition("ReplicaFailure", 9, "FailedCreateHeadPod", "exceeded quota: team")]},
        ),
        Going(INITIALIZING, 3, "Initializing: FailedCreateHeadPod: exceeded quota: team"),
    ),
    ("ray waits for its submission", RAY_JOB, ray("Waiting"), Going(INITIALIZING, 3)),
    ("ray runs", RAY_JOB, ray("Running", "RUNNING"), Going(RUNNING)),
    ("ray submitted", RAY_JOB, ray("Running", "PENDING"), Going(RUNNING)),
    ("ray suspending", RAY_JOB, ray("Suspending"), Going(WAITING, 3)),
    ("ray suspended", RAY_JOB, ray("Suspended"), Going(WAITING, 3)),
    ("ray again", RAY_JOB, ray("Retrying"), Going(INITIALIZING, 3)),
    ("ray of the future", RAY_JOB, ray("Dreaming", "RUNNING"), Going(RUNNING)),
    ("dask unseen", DASK_JOB, resource(None), Going(QUEUED, 0)),
    ("dask created", DASK_JOB, dask("JobCreated"), Going(INITIALIZING, 0, "JobCreated")),
    ("dask has a cluster", DASK_JOB, dask("ClusterCreated"), Going(INITIALIZING, 0, "ClusterCreated")),
    ("dask runs", DASK_JOB, dask("Running"), Going(RUNNING, 20)),
    ("dask of the future", DASK_JOB, dask("Scaling"), Going(RUNNING)),
    ("training unseen", PYTORCH_JOB, resource(None), Going(QUEUED, 0)),
    ("training created", PYTORCH_JOB, training(CREATED), Going(INITIALIZING, 1, "PyTorchJob is created.")),
    (
        "training suspended",
        TF_JOB,
        training(CREATED, condition("Suspended", 2, "s", "by Kueue")),
        Going(WAITING, 2, "by Kueue"),
    ),
    ("training runs", PYTORCH_JOB, training(CREATED, condition("Running", 30, "r", "is running.")), Going(RUNNING, 30)),
    (
        "training in one second",
        MPI_JOB,
        training(condition("Created", 1, "c"), condition("Running", 1, "r")),
        Going(RUNNING, 1),
    ),
    (
        "training restarts",
        PYTORCH_JOB,
        training(CREATED, condition("Running", 30, status="False"), condition("Restarting", 40, "r", "1 Worker restarts")),
        Going(RUNNING, 40, "1 Worker restarts"),
    ),
    (
        "training runs again",
        PYTORCH_JOB,
        training(CREATED, condition("Running", 60), condition("Restarting", 40, status="False")),
        Going(RUNNING, 60),
    ),
    (
        "training of the future",
        PYTORCH_JOB,
        training(CREATED, condition("Pondering", 50, "p", "why")),
        Going(RUNNING, 50, "p: why"),
    ),
    ("jobset unseen", JOB_SET, resource(None), Going(QUEUED, 0)),
    ("jobset has its job", JOB_SET, jobset(), Going(QUEUED, 0)),
    ("jobset has pods", JOB_SET, jobset(active=1), Going(INITIALIZING)),
    ("jobset ready", JOB_SET, jobset(active=1, ready=1), Going(RUNNING)),
    ("jobset restarted", JOB_SET, jobset(restarts=2, active=1), Going(RUNNING, None, "restarted 2 times")),
    ("jobset suspended", JOB_SET, jobset(condition("Suspended", 2, "S", "held")), Going(WAITING, 2, "held")),
    (
        "jobset on its way up",
        JOB_SET,
        jobset(condition("StartupPolicyInProgress", 3), active=1),
        Going(INITIALIZING),
    ),
]


@pytest.mark.parametrize(("kind", "obj", "going"), [case[1:] for case in PROGRESS], ids=[case[0] for case in PROGRESS])
def test_a_resource_that_has_not_ended(kind: Kind, obj: dict[str, Any], going: Going):
    """Tells how far it is; what nobody here has heard of is no end."""
    found = READERS[kind](obj)
    assert (found.phase, found.exit) == (going.phase, None)
    assert found.since == (None if going.seconds is None else micros(going.seconds))
    assert going.says in found.reason


SUCCESSES: list[tuple[str, Kind, dict[str, Any], int]] = [
    ("spark", SPARK_APPLICATION, spark("COMPLETED"), 90),
    ("ray", RAY_JOB, ray("Complete", "SUCCEEDED"), 90),
    ("dask", DASK_JOB, dask("Successful"), 90),
    ("dask of an older operator", DASK_JOB, dask("Completed", endTime="2026-03-01T10:01:30Z"), 90),
    (
        "training",
        PYTORCH_JOB,
        training(
            CREATED, condition("Running", 30, status="False"), condition("Succeeded", 91), completionTime="2026-03-01T10:01:30Z"
        ),
        90,
    ),
    ("training without a time", TF_JOB, training(CREATED, condition("Succeeded", 91)), 91),
    ("jobset", JOB_SET, jobset(condition("Completed", 90, "AllJobsCompleted"), succeeded=1), 90),
    ("jobset after a restart", JOB_SET, jobset(condition("Completed", 90), restarts=1, succeeded=1), 90),
]


@pytest.mark.parametrize(("kind", "obj", "at"), [case[1:] for case in SUCCESSES], ids=[case[0] for case in SUCCESSES])
def test_a_resource_that_succeeded(kind: Kind, obj: dict[str, Any], at: int):
    """Has ended as a program that exits with 0, when its operator says."""
    found = READERS[kind](obj)
    assert (found.phase, found.since, found.exit) == (RUNNING, micros(at), Exit(code=0))


class Failing(NamedTuple):
    code: str
    says: str
    failure: Failure = Failure.USER
    phase: Phase = RUNNING
    retryable: bool = True


FAILURES: list[tuple[str, Kind, dict[str, Any], Failing]] = [
    (
        "spark's driver",
        SPARK_APPLICATION,
        spark("FAILED", "driver container failed with ExitCode: 1, Reason: Error"),
        Failing("SparkFailed", "ExitCode: 1"),
    ),
    (
        "spark without its driver",
        SPARK_APPLICATION,
        spark("FAILED", "driver pod not found"),
        Failing("SparkDriverLost", "driver pod not found", Failure.SYSTEM),
    ),
    ("spark without a word", SPARK_APPLICATION, spark("FAILED"), Failing("SparkFailed", "its log may tell why")),
    (
        "spark refused",
        SPARK_APPLICATION,
        spark("SUBMISSION_FAILED", "failed to run spark-submit: Unknown option --cores", attempts=0),
        Failing("SparkSubmissionFailed", "Unknown option", phase=INITIALIZING),
    ),
    (
        "spark never submitted",
        SPARK_APPLICATION,
        spark("FAILED", "failed to run spark-submit: pods is forbidden: exceeded quota: team", attempts=0),
        Failing("SparkSubmissionFailed", "exceeded quota", Failure.SYSTEM, INITIALIZING),
    ),
    (
        "ray's program",
        RAY_JOB,
        ray("Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 1"),
        Failing("AppFailed", "exit code 1"),
    ),
    (
        "ray's program, timed out itself",
        RAY_JOB,
        ray("Failed", "FAILED", reason="AppFailed", message="requests.Timeout: connection refused"),
        Failing("AppFailed", "connection refused"),
    ),
    ("ray's program, for an older operator", RAY_JOB, ray("Complete", "FAILED"), Failing("RayJobFailed", "FAILED")),
    ("ray stopped", RAY_JOB, ray("Complete", "STOPPED"), Failing("RayJobFailed", "was stopped")),
    (
        "ray not submitted",
        RAY_JOB,
        ray("Failed", reason="SubmissionFailed", message="BackoffLimitExceeded"),
        Failing("SubmissionFailed", "BackoffLimitExceeded", Failure.SYSTEM, INITIALIZING),
    ),
    (
        "ray submitted, and failed",
        RAY_JOB,
        ray("Failed", "FAILED", reason="SubmissionFailed", message="BackoffLimitExceeded"),
        Failing("SubmissionFailed", "BackoffLimitExceeded"),
    ),
    (
        "ray out of sight",
        RAY_JOB,
        ray("Failed", "RUNNING", reason="JobDeploymentStatusTransitionGracePeriodExceeded", message="exceeded"),
        Failing("JobDeploymentStatusTransitionGracePeriodExceeded", "exceeded", Failure.SYSTEM),
    ),
    (
        "ray too late",
        RAY_JOB,
        ray("Failed", "RUNNING", reason="DeadlineExceeded", message="The RayJob has passed the activeDeadlineSeconds"),
        Failing("DeadlineExceeded", "activeDeadlineSeconds"),
    ),
    (
        "ray invalid",
        RAY_JOB,
        ray("ValidationFailed", reason="ValidationFailed", message="headGroupSpec is missing"),
        Failing("ValidationFailed", "headGroupSpec", phase=QUEUED, retryable=False),
    ),
    ("dask", DASK_JOB, dask("Failed"), Failing("DaskJobFailed", f"{NAME}-runner")),
    (
        "training's worker",
        PYTORCH_JOB,
        training(CREATED, condition("Failed", 90, "PyTorchJobFailed", "1 Worker replica(s) failed.")),
        Failing("PyTorchJobFailed", "1 Worker replica(s) failed."),
    ),
    (
        "training, told before it ran",
        TF_JOB,
        training(condition("Failed", 90, "TFJobFailed", "backoff limit"), startTime=None),
        Failing("TFJobFailed", "backoff limit", phase=INITIALIZING),
    ),
    (
        "training invalid",
        PYTORCH_JOB,
        training(condition("Failed", 2, "PyTorchJobFailedValidation", "no container is named pytorch")),
        Failing("PyTorchJobFailedValidation", "named pytorch", phase=INITIALIZING, retryable=False),
    ),
    (
        "training evicted",
        MPI_JOB,
        training(CREATED, condition("Failed", 90, "MPIJobEvicted", "launcher pod was evicted")),
        Failing("MPIJobEvicted", "evicted", Failure.SYSTEM),
    ),
    (
        "jobset",
        JOB_SET,
        jobset(condition("Failed", 90, "FailedJobs", "jobset failed due to one or more job failures"), failed=1),
        Failing("FailedJobs", "one or more job failures"),
    ),
    (
        "jobset once too often",
        JOB_SET,
        jobset(condition("Failed", 90, "ReachedMaxRestarts", "max restarts"), restarts=3, failed=1),
        Failing("ReachedMaxRestarts", "(after 3 restarts)"),
    ),
    (
        "jobset that never began",
        JOB_SET,
        jobset(condition("Failed", 90, "FailedJobs", "job was not created: exceeded quota: team")),
        Failing("FailedJobs", "exceeded quota", Failure.SYSTEM, INITIALIZING),
    ),
]


@pytest.mark.parametrize(("kind", "obj", "failing"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES])
def test_a_resource_that_failed(kind: Kind, obj: dict[str, Any], failing: Failing):
    """Tells why with its operator's words, whose fault it is, and how far it had come."""
    found = READERS[kind](obj)
    assert found.exit is not None and found.exit.fault is not None
    fault = found.exit.fault
    assert (fault.code, fault.failure, fault.retryable, found.phase) == (
        failing.code,
        failing.failure,
        failing.retryable,
        failing.phase,
    )
    assert failing.says in fault.message


def test_a_spark_driver_out_of_memory():
    """Is told as such, not as an exit code."""
    found = READERS[SPARK_APPLICATION](spark("FAILED", "driver container failed with ExitCode: 137, Reason: OOMKilled"))
    assert found.exit == Exit(code=137, out_of_memory=True)


def linked(kind: Kind, obj: dict[str, Any], readers: Mapping[Kind, Callable[[Mapping[str, Any]], State]] = READERS) -> Any:
    return [(link.name, link.uri, link.ready, link.HideOnceFinished) for link in readers[kind](obj).links]


def test_dashboards_are_links_while_they_are_of_use():
    """A driver's UI while there is one, its history afterwards; Ray's and Dask's are ready when the program runs."""
    ingress = {"driverInfo": {"webUIIngressAddress": "ui.example.com/r1"}}
    assert linked(SPARK_APPLICATION, spark("SUBMITTED", **ingress)) == [
        ("Spark Driver UI", "https://ui.example.com/r1", False, True)
    ]
    assert linked(SPARK_APPLICATION, spark("RUNNING", **ingress)) == [
        ("Spark Driver UI", "https://ui.example.com/r1", True, True)
    ]
    assert linked(SPARK_APPLICATION, spark("RUNNING")) == []
    history = [("Spark History UI", "https://history.example.com/spark-5f7c", True, False)]
    assert linked(SPARK_APPLICATION, spark("COMPLETED")) == linked(SPARK_APPLICATION, spark("FAILED")) == history
    assert linked(SPARK_APPLICATION, spark("COMPLETED", sparkApplicationId="")) == []
    within = f"http://{NAME}-xk2vq-head-svc.flyte.svc.cluster.local:8265"
    assert linked(RAY_JOB, ray("Initializing")) == [("Ray Dashboard", within, False, True)]
    assert linked(RAY_JOB, ray("Running", "RUNNING")) == [("Ray Dashboard", within, True, True)]
    assert linked(DASK_JOB, dask("Running")) == [
        ("Dask Dashboard", f"https://dask.example.com/flyte/{NAME}/status", True, True)
    ]
    [link] = READERS[RAY_JOB](ray("Running")).links
    assert link.link_type == execution_pb2.TaskLog.DASHBOARD


def test_rays_dashboard_may_be_somewhere_else():
    """Its address is told when what it needs is known."""
    config = OperatorConfig(ray_dashboard="https://ray.example.com/{{.namespace}}/{{.rayClusterName}}/#/jobs/{{.rayJobID}}")
    readers = Operators(Pods(PodConfig()), config).readers
    uri = f"https://ray.example.com/flyte/{NAME}-xk2vq/#/jobs/{NAME}-w9qj4"
    assert linked(RAY_JOB, ray("Running"), readers) == [("Ray Dashboard", uri, True, True)]
    assert linked(RAY_JOB, ray("Initializing", rayClusterName=""), readers) == []


FIELDS = re.findall(
    r"\w+",
    """status metadata conditions type state reason message name applicationState errorMessage driverInfo restarts ready
    jobStatus jobDeploymentStatus rayClusterStatus replicatedJobsStatus lastTransitionTime terminationTime executionAttempts
    webUIIngressAddress dashboardURL startTime endTime creationTimestamp""",
)

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["True", "Failed", "FAILED", "workers"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=24,
)


@given(status=ANYTHING, metadata=ANYTHING, kind=st.sampled_from(sorted(READERS, key=lambda kind: kind.kind)))
def test_no_resource_is_too_strange(status: Any, metadata: Any, kind: Kind):
    """Whatever stands in it, it has a state, and one that can be sent."""
    found = READERS[kind]({"metadata": metadata, "status": status})
    assert found.phase in (QUEUED, WAITING, INITIALIZING, RUNNING)
    found.reason.encode()


def test_names_are_within_every_operators_limit():
    """What the launcher keeps to suits all of them."""
    assert NAME_LIMITS.keys() == READERS.keys()
    assert min(NAME_LIMITS.values()) >= RESOURCE_NAME_LIMIT
