"""What a run's project gives to tasks that say nothing: a PodTemplate, resources, a bound."""

from __future__ import annotations

from typing import Any

from tests.unit.plugins.contexts import built, refused

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
