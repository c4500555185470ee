"""What a run's project gives to tasks that say nothing: a PodTemplate, resources, a bound."""

from __future__ import annotations

from typing import Any

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
TEMPLATE = {"defaultSettings": {"podTemplateName": "of-the-project"}}


def _resources(spec: dict[str, Any]) -> Any:
    return next(container for container in spec["containers"] if container["name"] == "primary")["resources"]


def _asking(**amounts: str) -> dict[str, Any]:
    requests = [{"name": name.upper(), "value": value} for name, value in amounts.items()]
    return {"container": {"image": "i", "args": ["a0"], "resources": {"requests": requests}}}


def test_resources_of_a_task_that_says_nothing() -> None:
    """The run's where it gives some, else the operator's; limits are no higher than the run allows."""
    found = _resources(built(_asking(), GIVEN, cpu="1", memory="3Gi"))
    assert found["requests"] == {"cpu": "3", "memory": "2Gi", "ephemeral-storage": "2Gi"}
    assert found["limits"] == found["requests"]


def test_a_task_has_what_it_asks_for_within_bounds() -> None:
    """More than the bound is the bound, in the request too."""
    found = _resources(built(_asking(cpu="500m", memory="8Gi"), GIVEN))
    assert (found["requests"]["cpu"], found["requests"]["memory"], found["limits"]["memory"]) == ("500m", "2Gi", "2Gi")


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


def _on_a_laptop(limits: dict[str, str] | None = None, **requests: str) -> Resources:
    asked = {
        kind: [{"name": name.upper(), "value": value} for name, value in amounts.items()]
        for kind, amounts in (("requests", requests), ("limits", limits or {}))
    }
    run = json_format.ParseDict(GIVEN, run_pb2.RunSpec())
    work = registry.describe(context_of(spec(container=CONTAINER | {"resources": asked}), run_spec=run))
    assert isinstance(work, Process), work
    return work.resources


def test_slots_of_a_laptop() -> None:
    """The same counts there: what a task says nothing of, and the most that any has."""
    assert _on_a_laptop() == Resources(cpu=3.0)
    asked = _on_a_laptop(cpu="8", memory="8Gi", limits={"memory": "9Gi"})
    assert asked == Resources(cpu=4.0, memory=2 << 30, memory_limit=2 << 30)
    assert _on_a_laptop(limits={"cpu": "500m"}) == Resources(cpu=0.5, cpu_limit=0.5)


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
