"""config/kubernetes: what a cluster makes of it, and what the control plane may do with it."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyte_unified.kube.kinds import Object
from flyte_unified.settings import Settings, load
from flyte_unified.testing.fake_kube import FakeKube
from tests.cluster.local import REAL
from tests.cluster.manifests import KUBERNETES, OVERLAY, access_everywhere, base

KUBECTL = shutil.which("kubectl")
_NAMESPACE = "flyte"
_SETTINGS = KUBERNETES.parent / "cluster.yaml"
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl on PATH")


def kustomize(directory: Path) -> list[Object]:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(directory)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (obj for obj in objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))
    return found


def container(objects: list[Object]) -> Object:
    found: Object = named(objects, "Deployment", "flyte-unified")["spec"]["template"]["spec"]["containers"][0]
    return found


def rights(role: Object) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def as_deployed(objects: list[Object]) -> Settings:
    """The settings of the image, of its environment, and of the Secret."""
    told = [entry for entry in container(objects)["env"] if "value" in entry]
    given = {entry["name"]: entry["value"].replace("$(POD_NAMESPACE)", _NAMESPACE) for entry in told}
    return load(file=_SETTINGS, environ={**given, "FLYTE_UNIFIED_SERVER_KEY": base64.b64encode(bytes(32)).decode()})


async def test_a_server_takes_all_of_it() -> None:
    """Every object is accepted, and comes back with nothing dropped that it was given."""
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        for obj in base(_NAMESPACE):
            assert lost(obj, cluster.apply(obj)) == []


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        return [at for key, value in given.items() for at in lost(value, kept.get(key), f"{path}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [at for index, value in enumerate(given) for at in lost(value, kept[index], f"{path}[{index}]")]
    return [] if given == kept else [f"{path}: {given!r} became {kept!r}"]


@needs_kubectl
async def test_kubectl_applies_it(tmp_path: Path) -> None:
    """``kubectl apply -k`` in a dry run, strictly validated, into a namespace that is there."""
    assert KUBECTL is not None
    if REAL:
        with namespace(Path(REAL)):
            apply(Path(REAL))
        return
    async with FakeKube.running() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
        await asyncio.to_thread(apply, cluster.kubeconfig(tmp_path / "kubeconfig"))


@contextmanager
def namespace(kubeconfig: Path) -> Iterator[None]:
    """One of that name; it goes again if it was not there before."""
    command = [str(KUBECTL), f"--kubeconfig={kubeconfig}"]
    made = subprocess.run([*command, "create", "namespace", _NAMESPACE], capture_output=True, text=True, check=False)
    assert made.returncode == 0 or "AlreadyExists" in made.stderr, made.stderr
    yield
    if made.returncode == 0:
        subprocess.run([*command, "delete", "namespace", _NAMESPACE], capture_output=True, check=True)


def apply(kubeconfig: Path) -> None:
    options = ["--dry-run=server", "--validate=strict", f"--kubeconfig={kubeconfig}"]
    done = subprocess.run(
        [str(KUBECTL), "apply", "-k", str(KUBERNETES / "base"), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_kubectl
def test_kustomize_makes_what_these_tests_read() -> None:
    """But for labels, which are kustomize's to set."""
    built = kustomize(KUBERNETES / "base")
    for obj in built:
        assert obj["metadata"].pop("labels")["app.kubernetes.io/name"] == "flyte-unified"
    container(built)["image"] = "flyte-unified"
    read = base(_NAMESPACE)
    for obj in read:
        obj["metadata"].pop("labels", None)

    def order(obj: Object) -> tuple[str, str]:
        return obj["kind"], obj["metadata"]["name"]

    assert sorted(built, key=order) == sorted(read, key=order)


@needs_kubectl
def test_projects_may_have_namespaces_of_their_own() -> None:
    """The overlay's rights are the base's, in all namespaces; only the lease stays where the control plane is."""
    built = kustomize(OVERLAY)
    everywhere = named(built, "ClusterRole", "flyte-unified")
    assert rights(everywhere) == rights(named(base(_NAMESPACE), "Role", "flyte-unified"))
    assert "namespace" not in everywhere["metadata"]
    binding = named(built, "ClusterRoleBinding", "flyte-unified")
    assert binding["roleRef"]["kind"] == "ClusterRole"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "flyte-unified", "namespace": _NAMESPACE}]
    assert {obj["metadata"]["name"] for obj in built if obj["kind"] == "Role"} == {"flyte-unified-leader"}
    settings = as_deployed(built)
    assert settings.kubernetes.namespace_of("p", "development") == "p-development"
    assert settings.kubernetes.scope == ""


@needs_kubectl
def test_kustomize_spreads_rights_as_these_tests_do(tmp_path: Path) -> None:
    """The overlay and its secrets, as a user's kustomization names them."""
    told = {"resources": [OVERLAY], "components": [OVERLAY / "secrets"]}
    paths = {key: [os.path.relpath(path, tmp_path.resolve()) for path in found] for key, found in told.items()}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": _NAMESPACE, **paths}))
    read = access_everywhere(_NAMESPACE)
    kinds = {obj["kind"] for obj in read}
    built = [obj for obj in kustomize(tmp_path) if obj["kind"] in kinds]
    for obj in (*built, *read):
        obj["metadata"].pop("labels", None)

    def order(obj: Object) -> tuple[str, str]:
        return obj["kind"], obj["metadata"]["name"]

    assert sorted(built, key=order) == sorted(read, key=order)


def test_the_server_stops_before_it_is_killed() -> None:
    """Kubernetes' patience is longer than the pause before the stop and the stop together."""
    objects = base(_NAMESPACE)
    pod = named(objects, "Deployment", "flyte-unified")["spec"]["template"]["spec"]
    (_, pause) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > float(pause) + as_deployed(objects).server.shutdown_grace


def test_the_server_makes_its_own_data_directory() -> None:
    """A volume's is root's, whatever fsGroup says, and can't be closed to others; and nothing else can be written to."""
    objects = base(_NAMESPACE)
    assert container(objects)["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert str(as_deployed(objects).data.dir.parent) in mounts


def test_the_server_is_found_where_it_listens() -> None:
    """Service, probes and NetworkPolicy lead to the port of the settings; hosts that tasks and ingresses call are answered."""
    objects = base(_NAMESPACE)
    settings = as_deployed(objects)
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports == {"http": settings.server.port}
    (service,) = named(objects, "Service", "flyte-unified")["spec"]["ports"]
    (allowed,) = named(objects, "NetworkPolicy", "flyte-unified")["spec"]["ingress"][0]["ports"]
    probes = {container(objects)[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {service["targetPort"], allowed["port"], *probes} == {"http"}
    assert settings.server.task_url == f"http://flyte-unified.{_NAMESPACE}.svc"
    assert f"flyte-unified.{_NAMESPACE}.svc" in settings.hosts


def test_tasks_run_as_an_account_without_rights() -> None:
    """Theirs exists, has no token in its pods, and no role is bound to it."""
    objects = base(_NAMESPACE)
    account = named(objects, "ServiceAccount", as_deployed(objects).pods.service_account)
    assert account["automountServiceAccountToken"] is False
    bound = {subject["name"] for obj in objects for subject in obj.get("subjects", ())}
    assert bound == {"flyte-unified"}


def test_no_right_is_a_wildcard() -> None:
    """Least rights name groups, resources and verbs; secrets, exec and roles are not among them."""
    every = {right for obj in base(_NAMESPACE) if obj["kind"] == "Role" for right in rights(obj)}
    assert not {right for right in every if "*" in right}
    assert not {resource for _, resource, _ in every} & {"secrets", "configmaps", "pods/exec", "roles", "rolebindings"}
