"""What a run says of itself, on pods."""

# ruff: noqa: F401
from __future__ import annotations

import pytest

from flyte_unified.kube.kinds import PODS, Object
from tests.cluster.local import LocalCluster
from tests.sdk.conftest import Client, Said
from tests.sdk.test_run_spec import test_a_queue_is_shared_in_turns, test_a_run_computes_no_more_at_once_than_it_wants


@pytest.fixture(scope="session")
def said(client: Client) -> dict[str, Said]:
    return client.say("specified", "", "", "")


def test_labels_and_annotations_are_the_pods(cluster: LocalCluster, said: dict[str, Said]) -> None:
    """Of the run's root and of its child; so are its variables."""

    async def pods() -> list[Object]:
        labels = f"run={said['all']['run']}"
        return [pod async for page, _ in cluster.kube.pages(PODS, namespace=cluster.namespace, labels=labels) for pod in page]

    found = cluster.do(pods)
    assert len(found) == 2
    for pod in found:
        assert pod["metadata"]["labels"]["team"] == "red"
        assert pod["metadata"]["annotations"]["why"] == "because"
        assert {"name": "OF_RUN", "value": "run"} in pod["spec"]["containers"][0]["env"]
