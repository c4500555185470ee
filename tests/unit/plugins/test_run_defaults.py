"""What a run's project gives to tasks that say nothing: a PodTemplate, resources, a bound."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.task import run_pb2
from google.protobuf import json_format

from flyte_unified.plugins import registry
from flyte_unified.plugins.api import Process, Resources
from tests.unit.plugins.contexts import CONTAINER, built, context_of, refused, spec

GIVEN = {
    "defaultSettings": {
        "taskResourceDefaults": {
            "requests": [{"name": "CPU", "value": "3"}, {"name": "EPHEMERAL_STORAGE", "value": "2Gi"}],
            "max": [{"name": "MEMORY", "value": "2Gi"}, {"name": "CPU", "value": "4"}],
        },
    }
}
MIRRORED = {"annotations": {"values": {"flyte.org/mirror-limits-request": "true"}}}
DISK = {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"}
TEMPLATE = {"defaultSettings": {"podTemplateName": "of-the-project"}}


def _resources(spec: dict[str, Any]) -> Any:
    return next(container for container in spec["containers"] if container["name"] == "primary")["resources"]


def _asking(limits: dict[str, str] | None = None, **requests: str) -> dict[str, Any]:
    asked = {
        kind: [{"name": name.upper(), "value": value} for name, value in amounts.items()]
        for kind, amounts in (("requests", requests), ("limits", limits or {}))
    }
    return {"container": {"image": "i", "args": ["a0"], "resources": asked}}


def test_resources_of_a_task_that_says_nothing() -> None:
    """The run's where it gives some, else the operator's; limits are no higher than the run allows."""
    found = _resources(built(_asking(), GIVEN, cpu="1", memory="3Gi"))
    assert found["requests"] == {"cpu": "3", "memory": "2Gi", "ephemeral-storage": "2Gi"}
    assert found["limits"] == found["requests"]


def test_a_task_has_what_it_asks_for_within_bounds() -> None:
    """More than the bound is the bound, in the request too."""
    found = _resources(built(_asking(cpu="500m", memory="8Gi"), GIVEN))
    assert (found["requests"]["cpu"], found["requests"]["memory"], found["limits"]["memory"]) == ("500m", "2Gi", "2Gi")


@pytest.mark.parametrize(
    ("asked", "limits", "had"),
    [
        ({"cpu": "1500m", "memory": "1Gi"}, {}, ("1500m", "1500m", "1Gi", "1Gi")),
        ({"cpu": "4000m", "memory": "2048Mi"}, {}, ("4000m", "4000m", "2048Mi", "2048Mi")),
        ({"cpu": "4001m", "memory": "2049Mi"}, {}, ("4", "4", "2Gi", "2Gi")),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "5", "memory": "3Gi"}, ("1", "4", "1Gi", "2Gi")),
        ({}, {"cpu": "5", "memory": "1Gi"}, ("4", "4", "1Gi", "1Gi")),
    ],
)
def test_bounds_are_compared_as_amounts(asked: dict[str, str], limits: dict[str, str], had: tuple[str, ...]) -> None:
    """However they are written; a limit above the bound is the bound, and a request below it stays."""
    found = _resources(built(_asking(limits, **asked), GIVEN))
    assert tuple(found[kind][name] for name in ("cpu", "memory") for kind in ("requests", "limits")) == had


def test_no_devices_where_none_are_allowed() -> None:
    """A bound of 0 takes the GPUs that a task asks for, and with them their nodes; a bound gives none to who asks for none."""
    none, two = ({"defaultSettings": {"taskResourceDefaults": {"max": [{"name": "GPU", "value": n}]}}} for n in "02")
    spec = built(_asking(gpu="1"), none)
    assert "gpu" not in str(spec)
    assert _resources(built(_asking(gpu="4"), two))["limits"]["nvidia.com/gpu"] == "2"
    assert "gpu" not in str(built(_asking(), two))
    assert _on_a_laptop(run=none, gpu="1").gpu == 0


@pytest.mark.parametrize(
    ("asked", "limits", "run", "had"),
    [
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "2", "memory": "4Gi"}, {}, {"cpu": "1", "memory": "1Gi"}),
        ({"cpu": "3"}, {"cpu": "2"}, {}, {"cpu": "2", "memory": "3Gi"}),
        ({}, {"memory": "4Gi"}, {}, {"cpu": "1", "memory": "4Gi"}),
        ({"memory": "3Gi"}, {"memory": "4Gi"}, GIVEN, {"cpu": "3", "memory": "2Gi", "ephemeral-storage": "2Gi"}),
        ({"ephemeral_storage": "1Gi", "cpu": "2", "memory": "1Gi"}, {"ephemeral_storage": "5Gi"}, {}, DISK),
        ({"gpu": "1"}, {"gpu": "2"}, {}, {"cpu": "1", "memory": "3Gi", "nvidia.com/gpu": "2"}),
    ],
)
def test_limits_mirror_requests(
    asked: dict[str, str], limits: dict[str, str], run: dict[str, Any], had: dict[str, str]
) -> None:
    """Also below what a task names, and within the bounds; devices can't be had but whole."""
    found = _resources(built(_asking(limits, **asked), {**MIRRORED, **run}, cpu="1", memory="3Gi"))
    assert found == {"requests": had, "limits": had}


def test_limits_of_all_containers_mirror_requests() -> None:
    """Of a pod's other containers too, as far as they request anything."""
    containers = [
        {"name": "primary", "image": "i", "args": ["a0"]},
        {"name": "sidecar", "image": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}},
    ]
    task = {"k8sPod": {"podSpec": {"containers": containers}, "primaryContainerName": "primary"}}
    sidecar = built(task, MIRRORED)["containers"][1]
    assert sidecar["resources"] == {"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def test_a_pod_template_of_the_project() -> None:
    """It is used where the task names none, and missed where there is none."""
    template = {"template": {"spec": {"containers": [], "priorityClassName": "low"}}}
    named: list[str] = []

    def templates(namespace: str, name: str) -> dict[str, Any]:
        named.append(name)
        return template

    assert built(_asking(), TEMPLATE, templates=templates)["priorityClassName"] == "low"
    built({**_asking(), "metadata": {"pod_template_name": "mine"}}, TEMPLATE, templates=templates)
    assert named == ["of-the-project", "mine"]
    assert refused(_asking(), TEMPLATE).startswith("run_spec.default_settings.pod_template_name: there is no PodTemplate")


def _on_a_laptop(limits: dict[str, str] | None = None, *, run: dict[str, Any] = GIVEN, **requests: str) -> Resources:
    asked = CONTAINER | {"resources": _asking(limits, **requests)["container"]["resources"]}
    work = registry.describe(context_of(spec(container=asked), run_spec=json_format.ParseDict(run, run_pb2.RunSpec())))
    assert isinstance(work, Process), work
    return work.resources


def test_slots_of_a_laptop() -> None:
    """The same counts there: what a task says nothing of, and the most that any has."""
    assert _on_a_laptop() == Resources(cpu=3.0)
    asked = _on_a_laptop(cpu="8", memory="8Gi", limits={"memory": "9Gi"})
    assert asked == Resources(cpu=4.0, memory=2 << 30, memory_limit=2 << 30)
    assert _on_a_laptop(limits={"cpu": "500m"}) == Resources(cpu=0.5, cpu_limit=0.5)


def test_limits_mirror_requests_on_a_laptop() -> None:
    """What a task asks for is kept to, and so is what it has because it says nothing; a bound holds besides."""
    asked = _on_a_laptop({"memory": "2Gi"}, run=GIVEN | MIRRORED, cpu="1500m", memory="1Gi")
    assert asked == Resources(cpu=1.5, cpu_limit=1.5, memory=1 << 30, memory_limit=1 << 30)
    assert _on_a_laptop(run=GIVEN | MIRRORED, memory="8Gi").memory_limit == 2 << 30
    default = {"defaultSettings": {"taskResourceDefaults": {"requests": [{"name": "MEMORY", "value": "512Mi"}]}}}
    assert _on_a_laptop(run=default | MIRRORED) == Resources(memory=512 << 20, memory_limit=512 << 20)
    assert _on_a_laptop(run=default) == Resources(memory=512 << 20)


def test_an_accelerator_of_the_project() -> None:
    """A task that asks for GPUs and names none has the project's; one that names its own, or wants none, has not."""
    run = {"defaultSettings": {"taskResourceDefaults": {"defaultAccelerator": {"device": "mi300", "deviceClass": "AMD_GPU"}}}}
    given = built(_asking(gpu="2"), run)
    assert _resources(given)["limits"]["amd.com/gpu"] == "2"
    assert "mi300" in str(given["affinity"])
    own = built(_asking(gpu="2") | {"extendedResources": {"gpuAccelerator": {"device": "nvidia-l4"}}}, run)
    assert _resources(own)["limits"]["nvidia.com/gpu"] == "2"
    assert "mi300" not in str(own)
    assert "affinity" not in built(_asking(), run)
