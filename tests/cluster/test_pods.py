"""What a laptop has not: images of their own, PodTemplates, Secrets, and trouble with either."""

from __future__ import annotations

import base64

import pytest

from flyte_unified.kube.kinds import POD_TEMPLATES, PODS, SECRETS, Object
from tests.cluster.local import LocalCluster
from tests.sdk.conftest import Client

Said = dict[str, dict[str, object]]
PASSWORD = "as long as this"


@pytest.fixture(scope="session")
def said(cluster: LocalCluster, client: Client) -> Said:
    """What the program said on a cluster that has the template and the Secret that it names."""
    container = {"name": "default", "image": "unused", "env": [{"name": "FROM_TEMPLATE", "value": "template"}]}
    password = {"metadata": {"name": "database"}, "data": {"password": base64.b64encode(PASSWORD.encode()).decode()}}

    async def create() -> None:
        template = {"metadata": {"name": "a-template-of-the-cluster"}, "template": {"spec": {"containers": [container]}}}
        await cluster.kube.create(POD_TEMPLATES, template, namespace=cluster.namespace)
        await cluster.kube.create(SECRETS, password, namespace=cluster.namespace)

    cluster.do(create)
    return client.say("containers", "container", "breaker", "template", "secret", "pod")


def test_an_image_of_its_own_gets_its_inputs_as_files(said: Said) -> None:
    """And what it leaves in files are its outputs, for a parent that is an ordinary task."""
    assert said["container"]["outputs"] == ["hello you;hello you; 20"]


def test_a_container_that_fails_is_told_by_its_exit(said: Said) -> None:
    """Its code, and the last that it wrote."""
    broken = said["breaker"]
    assert (broken["phase"], broken["code"]) == ("FAILED", "ContainerExited")
    assert "3" in str(broken["message"]) and "no luck" in str(broken["message"])


def test_a_pod_is_laid_over_its_template(said: Said) -> None:
    """The cluster's own, which the task names, or the task's."""
    assert (said["template"]["outputs"], said["pod"]["outputs"]) == (["template"], ["pod"])


def test_a_secret_is_given_by_reference(cluster: LocalCluster, said: Said) -> None:
    """The task has its value, the pod only its name."""
    assert said["secret"]["outputs"] == [len(PASSWORD)]

    async def pods() -> list[Object]:
        labels = f"run={said['secret']['run']}"
        return [pod async for page, _ in cluster.kube.pages(PODS, namespace=cluster.namespace, labels=labels) for pod in page]

    (pod,) = cluster.do(pods)
    (entry,) = [entry for entry in pod["spec"]["containers"][0]["env"] if entry["name"] == "PASSWORD"]
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "database", "key": "password"}
    assert PASSWORD not in str(pod)


def test_an_image_that_nobody_has_ends_the_attempt(cluster: LocalCluster, client: Client) -> None:
    """When it has failed to come for as long as it may, in words that name it."""
    cluster.kubelet.images.missing.add("example.com/nowhere*")
    missing = client.say("containers", "unknown")["unknown"]
    assert (missing["phase"], missing["code"]) == ("FAILED", "ImagePullBackOff")
    assert "example.com/nowhere:1" in str(missing["message"])
