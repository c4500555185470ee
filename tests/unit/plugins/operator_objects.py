"""Operators' resources as their operators leave them in different moments, written for these tests."""

from __future__ import annotations

from typing import Any

from tests.unit.plugins.pod_objects import at

NAME, NAMESPACE = "r1-a0-0-0c6a8a", "flyte"


def resource(status: Any, **metadata: Any) -> dict[str, Any]:
    known = {"name": NAME, "namespace": NAMESPACE, "creationTimestamp": at(0)}
    return {"metadata": known | metadata, "spec": {}} | ({"status": status} if status is not None else {})


def condition(kind: str, seconds: int, reason: str = "", message: str = "", *, status: str = "True") -> dict[str, Any]:
    moment = at(seconds)
    times = {"lastTransitionTime": moment, "lastUpdateTime": moment}
    return {"type": kind, "status": status, "reason": reason, "message": message} | times


def spark(state: str, message: str = "", *, attempts: int = 1, **more: Any) -> dict[str, Any]:
    status = {
        "applicationState": {"state": state} | ({"errorMessage": message} if message else {}),
        "driverInfo": {"podName": f"{NAME}-driver", "webUIAddress": "10.0.0.4:4040", "webUIPort": 4040},
        "lastSubmissionAttemptTime": at(10),
        "sparkApplicationId": "spark-5f7c",
        "submissionAttempts": max(1, attempts),
        "submissionID": "1b2c3d",
        "terminationTime": at(90) if state in ("COMPLETED", "FAILED") else None,
    }
    if attempts:
        status |= {"executionAttempts": attempts, "executorState": {f"{NAME}-exec-1": "RUNNING"}}
    return resource(status | more)


def ray(deployment: str, job: str = "", **more: Any) -> dict[str, Any]:
    status = {
        "dashboardURL": f"{NAME}-xk2vq-head-svc.{NAMESPACE}.svc.cluster.local:8265",
        "failed": 0,
        "jobDeploymentStatus": deployment,
        "jobId": f"{NAME}-w9qj4",
        "jobStatus": job,
        "observedGeneration": 2,
        "rayClusterName": f"{NAME}-xk2vq",
        "rayClusterStatus": {"desiredWorkerReplicas": 1, "head": {}, "state": "ready"},
        "startTime": at(3),
    }
    if deployment in ("Complete", "Failed"):
        status["endTime"] = at(90)
    return resource(status | more)


def dask(status: str, **more: Any) -> dict[str, Any]:
    told = {"clusterName": NAME, "jobRunnerPodName": f"{NAME}-runner", "jobStatus": status}
    if status in ("Running", "Successful", "Failed"):
        told["startTime"] = at(20)
    if status in ("Successful", "Failed"):
        told["endTime"] = at(90)
    return resource(told | more)


def training(*conditions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job of Kubeflow's; the operator lists conditions in the order in which they came up first."""
    return resource({"conditions": list(conditions), "startTime": at(4), "replicaStatuses": {"Worker": {"active": 1}}} | more)


def jobset(*conditions: dict[str, Any], restarts: int = 0, **workers: int) -> dict[str, Any]:
    counts = {"active": 0, "failed": 0, "ready": 0, "succeeded": 0, "suspended": 0} | workers
    return resource(
        {"conditions": list(conditions), "restarts": restarts, "replicatedJobsStatus": [{"name": "workers"} | counts]}
    )
