"""Where an API server keeps what."""

from __future__ import annotations

import pytest

from flyte_unified.kube.kinds import LEASES, NODES, PODS, TASK_ACTIONS, key_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("n"), "/api/v1/namespaces/n/pods"),
        (PODS.path("n", "a", "log"), "/api/v1/namespaces/n/pods/a/log"),
        (NODES.path("ignored", "a"), "/api/v1/nodes/a"),
        (LEASES.path("n", "a"), "/apis/coordination.k8s.io/v1/namespaces/n/leases/a"),
        (TASK_ACTIONS.path("n", "a", "status"), "/apis/flyte.org/v1/namespaces/n/taskactions/a/status"),
        (PODS.path("n", "../b?c"), "/api/v1/namespaces/n/pods/..%2Fb%3Fc"),
    ],
)
def test_an_address(path: str, expected: str):
    """As Kubernetes' API conventions have it; a name stays a name."""
    assert path == expected


def test_a_name_alone_is_no_address():
    """It would be taken for another object's."""
    with pytest.raises(ValueError, match="pods a: no namespace"):
        PODS.path(name="a")


def test_an_object_is_known_by_its_namespace_and_name():
    """An object of the whole cluster has none."""
    assert key_of({"metadata": {"name": "a", "namespace": "n"}}) == ("n", "a")
    assert key_of({"metadata": {"name": "a"}}) == ("", "a")
