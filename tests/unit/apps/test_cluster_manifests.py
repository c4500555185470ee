"""What an app is as a Deployment and a Service."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.common import identity_pb2
from google.protobuf import json_format

from flyte_unified.apps.cluster.manifests import APP, ASLEEP, DEPLOYED, Surroundings, key_of, manifests, name_of
from flyte_unified.apps.model import App, AppKey, created
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.kube.kinds import Object
from flyte_unified.plugins.pods.config import PodConfig, toleration

KEY = AppKey("Web_Shop", "production", "storefront-of-thirty-characters")
SURROUNDINGS = Surroundings(
    endpoint="http://flyte.flyte.svc",
    pattern=lambda project, domain: f"http://{{app_fqdn}}.{project}.{domain}.example.org",
    raw_data="s3://bucket/_apps",
    start=300.0,
)
CONTAINER: dict[str, Any] = {
    "image": "shop:1",
    "command": ["serve", "--data={{.rawOutputDataPrefix}}"],
    "args": ["{{.executionProject}}"],
    "env": [{"key": "COLOUR", "value": "red"}, {"key": "_U_INSECURE", "value": "mine"}],
    "ports": [{"containerPort": 9000, "name": "h2c"}],
    "resources": {"limits": [{"name": "MEMORY", "value": "2Gi"}]},
}


def app_of(key: AppKey = KEY, **spec: Any) -> App:
    asked = idl.App(spec=json_format.ParseDict(spec or {"container": CONTAINER}, idl.Spec()))
    return created(key, asked, by="", creator=identity_pb2.EnrichedIdentity(), now=Micros(0))


def made(app: App, *, replicas: int = 1, asleep: bool = False, **config: Any) -> tuple[Object, Object]:
    return manifests(
        app, namespace="shop", replicas=replicas, asleep=asleep, surroundings=SURROUNDINGS, config=PodConfig(**config)
    )


def main_of(deployment: Object) -> Object:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_container() -> None:
    """Its command with what it may say filled in, its environment with ours above, its port, and a probe of that."""
    deployment, service = made(app_of(), store={"FLYTE_AWS_ENDPOINT": "http://minio"})
    main = main_of(deployment)
    env = {entry["name"]: entry["value"] for entry in main["env"]}
    assert main["command"] == ["serve", f"--data=s3://bucket/_apps/{KEY}"]
    assert main["args"] == [KEY.project]
    assert (env["COLOUR"], env["_U_INSECURE"], env["PORT"]) == ("red", "true", "9000")
    assert env["INTERNAL_APP_ENDPOINT_PATTERN"] == "http://{app_fqdn}.Web_Shop.production.example.org"
    assert env["_U_EP_OVERRIDE"] == "http://flyte.flyte.svc"
    assert env["FLYTE_AWS_ENDPOINT"] == "http://minio"
    assert main["readinessProbe"]["tcpSocket"] == {"port": 9000}
    assert main["resources"]["limits"]["memory"] == main["resources"]["requests"]["memory"] == "2Gi"
    assert service["spec"]["ports"] == [{"name": "h2c", "port": 80, "targetPort": 9000}]
    assert deployment["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_names_and_labels() -> None:
    """Short enough for a pod's name, another one for each app, and by them the app is found again."""
    deployment, service = made(app_of())
    name = deployment["metadata"]["name"]
    assert name == service["metadata"]["name"] == name_of(KEY)
    assert len(f"{name}-1234567890-12345") <= 63
    assert key_of(deployment) == key_of(service) == KEY
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == {APP: name}
    assert deployment["spec"]["template"]["metadata"]["labels"][APP] == name
    assert name_of(AppKey("a", "b", "c-d")) != name_of(AppKey("d-a", "b", "c")) != name_of(AppKey("a", "d-b", "c"))
    copied = {"metadata": {**deployment["metadata"], "name": "another"}}
    assert key_of(copied) is None, "an operator copies annotations to what it makes"


def test_only_what_pods_are_made_of_rolls_them() -> None:
    """Replicas and sleep are no part of the template; another deployment is."""
    first, _ = made(app_of())
    asleep, _ = made(app_of(), replicas=0, asleep=True)
    other, _ = made(app_of(container={**CONTAINER, "image": "shop:2"}))
    assert first["spec"]["template"] == asleep["spec"]["template"]
    assert (asleep["spec"]["replicas"], asleep["metadata"]["annotations"][ASLEEP]) == (0, "1")
    digests = [each["spec"]["template"]["metadata"]["annotations"][DEPLOYED] for each in (first, other)]
    assert digests[0] != digests[1]


def test_the_operators_settings() -> None:
    """Tolerations, selectors, accounts and pull secrets are as with tasks' pods; only that such a pod may be evicted."""
    deployment, _ = made(
        app_of(),
        tolerations=(toleration("gpu:NoSchedule"),),
        node_selector={"pool": "web"},
        service_account="flyte-task",
        image_pull_secrets=("registry",),
        store_secret="flyte-store",
    )
    template = deployment["spec"]["template"]
    assert template["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert template["spec"]["nodeSelector"] == {"pool": "web"}
    assert template["spec"]["serviceAccountName"] == "flyte-task"
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert main_of(deployment)["envFrom"] == [{"secretRef": {"name": "flyte-store"}}]
    assert "safe-to-evict" not in str(template["metadata"]["annotations"])


@pytest.mark.parametrize(("grace", "lingers"), [(None, 3), (2, 2), (60, 3)])
def test_the_end_of_a_pod(grace: int | None, lingers: int) -> None:
    """Its program is told some seconds after everybody else, so that nobody is sent there any more; a hook of its own stays."""
    deployment, _ = made(app_of(), grace=grace)
    assert main_of(deployment)["lifecycle"] == {"preStop": {"sleep": {"seconds": lingers}}}
    hook = {"preStop": {"exec": {"command": ["drain"]}}}
    deployment, _ = made(app_of(pod={"podSpec": {"containers": [{"name": "app", "image": "i", "lifecycle": hook}]}}))
    assert main_of(deployment)["lifecycle"] == hook


def test_secrets_are_references() -> None:
    """Of the app's scope, as variables and as files."""
    secrets = [{"key": "token", "envVar": "TOKEN"}, {"key": "cert", "mountRequirement": "FILE"}]
    deployment, _ = made(app_of(container=CONTAINER, securityContext={"secrets": secrets}))
    env = {entry["name"]: entry for entry in main_of(deployment)["env"]}
    assert env["TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "value"
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    assert "projected" in volume


def test_a_pod_of_the_apps_own() -> None:
    """Its sidecars stay, and its container of the SDK's name is the one that is asked."""
    containers = [{"name": "proxy", "image": "proxy:1"}, {"name": "app", "image": "shop:1", "args": ["serve"]}]
    deployment, service = made(app_of(pod={"podSpec": {"containers": containers}}))
    spec = deployment["spec"]["template"]["spec"]
    assert [container["name"] for container in spec["containers"]] == ["proxy", "app"]
    assert "readinessProbe" not in spec["containers"][0]
    assert service["spec"]["ports"][0]["targetPort"] == 8080
    assert spec["containers"][1]["ports"] == [{"containerPort": 8080}]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"pod": {"podSpec": {"containers": []}}}, "none of the pod's containers"),
        ({"pod": {"podSpec": {"containers": [{"name": "app"}]}}}, "has no image"),
        ({"container": {**CONTAINER, "resources": {"limits": [{"name": "CPU", "value": "much"}]}}}, "resources.limits.cpu"),
        ({"pod": {"podSpec": {"containers": [{"name": "app", "image": "i", "ports": [{}]}]}}}, "containerPort"),
    ],
)
def test_what_is_no_pod(spec: dict[str, Any], words: str) -> None:
    """It is refused in words that name what is wrong."""
    with pytest.raises(InvalidArgument, match=words):
        made(app_of(**spec))
