"""How an app is, by what its pods and its Deployment say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flyte_unified.apps.cluster.manifests import DEPLOYED, deployed
from flyte_unified.apps.cluster.status import status
from flyte_unified.apps.model import App, Phase, Substate, Told, observed
from flyte_unified.core.clock import Micros
from flyte_unified.kube.kinds import Object
from tests.unit.apps.test_cluster_manifests import app_of

APP = app_of()
ACTIVE, FAILED = Phase.DEPLOYMENT_STATUS_ACTIVE, Phase.DEPLOYMENT_STATUS_FAILED
DEPLOYING, PENDING, STOPPED = (
    Phase.DEPLOYMENT_STATUS_DEPLOYING,
    Phase.DEPLOYMENT_STATUS_PENDING,
    Phase.DEPLOYMENT_STATUS_STOPPED,
)


def pod(container: dict[str, Any] | None = None, *, ready: bool = False, app: App = APP, **conditions: Any) -> Object:
    told = [{"type": "Ready", "status": "True" if ready else "False"}, *conditions.values()]
    return {
        "metadata": {"name": "p", "annotations": {DEPLOYED: deployed(app)}},
        "spec": {"nodeName": "n", "containers": [{"name": "primary", "image": "shop:1"}]},
        "status": {"conditions": told, "containerStatuses": [{"name": "primary", **(container or {})}]},
    }


def waiting(why: str, message: str = "", /, **last: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": why, "message": message}}, "lastState": {"terminated": last} if last else {}}


def gone(one: Object) -> Object:
    return {**one, "metadata": {**one["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}


def after(phase: int, substate: int = 0) -> App:
    found = observed(APP, Told(phase=phase, substate=substate), now=Micros(1))
    assert found is not None
    return found


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
OTHER = replace(APP, deployment="0" * 64)


@pytest.mark.parametrize(
    ("pods", "phase", "substate", "words"),
    [
        ([], DEPLOYING, Substate.INITIALIZING, ""),
        ([pod()], DEPLOYING, Substate.INITIALIZING, ""),
        ([pod(ready=True), pod()], ACTIVE, Substate.RUNNING, ""),
        ([pod(ready=True, app=OTHER), pod()], DEPLOYING, Substate.INITIALIZING, ""),
        ([gone(pod(ready=True))], DEPLOYING, Substate.INITIALIZING, ""),
        ([pod(scheduled=UNSCHEDULED)], PENDING, 0, "Unschedulable: 0/3 nodes"),
        (
            [pod(waiting("ImagePullBackOff", "no tag"))],
            FAILED,
            Substate.IMAGE_PULL_ERROR,
            "'shop:1' can't be had: no tag",
        ),
        ([pod(waiting("InvalidImageName"))], FAILED, Substate.IMAGE_PULL_ERROR, "InvalidImageName"),
        (
            [pod(waiting("CreateContainerConfigError", 'no secret "s"'))],
            FAILED,
            Substate.SECRET_MOUNT_ERROR,
            'no secret "s"',
        ),
        ([pod(waiting("CrashLoopBackOff", exitCode=3, message="a\nb\n"))], FAILED, Substate.CRASH_LOOP, "exit code 3: b"),
        ([pod(waiting("CrashLoopBackOff", exitCode=137, reason="OOMKilled"))], FAILED, Substate.OOM_KILLED, "memory limit"),
        ([pod({"state": {"terminated": {"exitCode": 3}}})], DEPLOYING, Substate.INITIALIZING, "exit code 3"),
        ([pod(scheduled=UNSCHEDULED), pod(waiting("InvalidImageName"))], FAILED, Substate.IMAGE_PULL_ERROR, "shop:1"),
    ],
)
def test_what_pods_say(pods: list[Object], phase: int, substate: int, words: str) -> None:
    """Pods of the deployment that is wanted count; the worst of their troubles is told, in their own words."""
    told = status(APP, {"status": {}}, pods, asleep=False)
    assert told is not None
    assert (told.phase, told.substate) == (phase, substate)
    assert words in told.message
    assert bool(words) == bool(told.message)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}, "exceeded quota"),
        ({"type": "Progressing", "status": "False", "message": "has timed out"}, "has timed out"),
    ],
)
def test_what_a_deployment_says(condition: dict[str, str], words: str) -> None:
    """One that makes no pods, or whose pods don't listen in time, has failed; one that has both is what its pods are."""
    deployment = {"status": {"conditions": [condition]}}
    told = status(APP, deployment, [], asleep=False)
    assert told == Told(phase=FAILED, message=words)
    running = status(APP, deployment, [pod(ready=True)], asleep=False)
    assert running is not None and running.phase == ACTIVE


def test_nobody_listens() -> None:
    """The port of one whose pod runs and was not ready in time is told, and still is when its pods are taken away."""
    deployment = {"status": {"conditions": [{"type": "Progressing", "status": "False", "message": "has timed out"}]}}
    deaf = pod({"state": {"running": {}}})
    deaf["status"]["phase"] = "Running"
    deaf["spec"]["containers"][0]["ports"] = [{"containerPort": 9000}]
    told = status(APP, deployment, [deaf], asleep=False)
    assert told == Told(phase=FAILED, message="its pod runs, but is not ready at port 9000: has timed out")
    assert status(after(FAILED), deployment, [], asleep=False) is None


def test_sleep_and_waking() -> None:
    """Asleep without pods; woken until one is ready, which is no new deployment."""
    asleep = status(APP, {"status": {}}, [], asleep=True)
    assert asleep == Told(phase=ACTIVE, substate=Substate.SCALED_TO_ZERO)
    woken = status(after(ACTIVE, Substate.SCALED_TO_ZERO), {"status": {}}, [pod()], asleep=False)
    assert woken == Told(phase=ACTIVE, substate=Substate.SCALING_FROM_ZERO)


def test_one_that_is_stopped() -> None:
    """When its last pod is gone, not before."""
    spec = type(APP.spec).FromString(APP.spec.SerializeToString())
    spec.desired_state = spec.DESIRED_STATE_STOPPED
    stopped = replace(APP, spec=spec)
    assert status(stopped, None, [gone(pod())], asleep=False) is None
    assert status(stopped, None, [], asleep=False) == Told(phase=STOPPED)


def test_nothing_is_told_of_another_try() -> None:
    """What has failed has failed until it runs; and one failed pull is no failure yet."""
    again = pod({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 3}}})
    assert status(after(FAILED), {"status": {}}, [again], asleep=False) is None
    assert status(APP, {"status": {}}, [pod(waiting("ErrImagePull"))], asleep=False) is None
