"""What is kept of work while it runs in a cluster."""

from __future__ import annotations

from flyte_unified.core.phases import Phase
from flyte_unified.plugins.api import Pod, Resource, State


def test_a_launched_pod_is_known_by_its_image() -> None:
    """Whoever reads of its end is told where it ran; most of its manifest is needed by nobody any more."""
    containers = [{"name": "sidecar", "image": "b"}, {"name": "main", "image": "a", "args": ["x"] * 1000}]
    launched = Pod(manifest={"metadata": {}, "spec": {"containers": containers}}, primary="main").launched()
    assert launched.image == "a"
    assert launched.manifest == {"spec": {"containers": [{"name": "main", "image": "a"}]}}
    assert launched.launched() == launched


def test_a_launched_resource_is_known_by_its_kind() -> None:
    """How it is read stays; what was asked of its operator does not."""
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {}, "spec": {"large": "x" * 1000}}
    resource = Resource(
        manifest=manifest, plural="rayjobs", state=lambda _: State(phase=Phase.RUNNING), pod_labels=lambda name: {"job": name}
    )
    launched = resource.launched()
    assert launched.manifest == {"apiVersion": "ray.io/v1", "kind": "RayJob"}
    assert (launched.state, launched.pod_labels) == (resource.state, resource.pod_labels)
