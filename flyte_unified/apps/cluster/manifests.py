"""What an app is in a cluster: a Deployment, and a Service before it (or one object of Knative's: ``knative``). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flyteidl2.core import security_pb2, tasks_pb2

from flyte_unified.apps.model import App, AppKey
from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import FlyteUnifiedError
from flyte_unified.core.ids import scope_part
from flyte_unified.core.names import app_name
from flyte_unified.kube.kinds import DEPLOYMENTS, SERVICES, Object
from flyte_unified.plugins.container import APPS
from flyte_unified.plugins.pods import reading
from flyte_unified.plugins.pods.build import Template
from flyte_unified.plugins.pods.config import PodConfig
from flyte_unified.plugins.pods.serving import Served, port_of, serving, understood

APP = "flyte.org/app"
"""The label of all that belongs to an app, with its object's name; the annotation that says which app."""
DEPLOYED = "flyte.org/deployment"
"""Annotation of pods: how the digest of what they are made of begins."""
ASLEEP = "flyte.org/asleep"
"""Annotation of a Deployment without pods: the revision that nobody asked for."""
VISITED = "flyte.org/visited"
"""Annotation of a Deployment, of any server: when somebody asked for it, in microseconds since 1970. At most
``1 / TOUCHES`` of its patience old while somebody asks."""
TOUCHES = 4
_MAIN = "app"
"""What the SDK calls a pod's primary container."""
_DIGITS = 12
_LINGERS = 3
"""Seconds from the word that a pod ends to its program's hearing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What apps are told. ``pattern`` is how they reach each other, by project and domain; ``start`` is in seconds."""

    endpoint: str
    pattern: Callable[[str, str], str]
    raw_data: str
    start: float


def name_of(key: AppKey) -> str:
    return app_name(*key)


def key_of(obj: Object) -> AppKey | None:
    """The app that an object is of; None for what is not ours: controllers copy labels and annotations to what they make."""
    if controlled(obj):
        return None
    parts = annotation(obj, APP).split("/")
    if len(parts) != len(AppKey._fields):
        return None
    try:
        key = AppKey(*(scope_part(part, field=APP) for part in parts))
    except FlyteUnifiedError:
        return None
    return key if obj["metadata"]["name"] == name_of(key) else None


def controlled(obj: Object) -> bool:
    """Whether a controller made it for another object."""
    return any(owner.get("controller") for owner in reading.mappings(obj["metadata"].get("ownerReferences")))


def annotation(obj: Object, name: str) -> str:
    return reading.text(reading.mapping(obj["metadata"].get("annotations")).get(name))


def deployed(app: App) -> str:
    return app.deployment[:_DIGITS]


def visited(deployment: Object) -> Micros:
    said = annotation(deployment, VISITED)
    return Micros(int(said) if said.isdecimal() else 0)


def parts(app: App, *, namespace: str, surroundings: Surroundings, config: PodConfig) -> tuple[Object, Template]:
    """The metadata of each of its objects, and its pods. Raises InvalidArgument."""
    key, name = app.key, name_of(app.key)
    labels = {"organization": "flyte", "project": key.project, "domain": key.domain, APP: name}
    pod = serving(_served(app, namespace, labels, surroundings), config)
    pod.annotations[DEPLOYED] = deployed(app)
    return {"name": name, "namespace": namespace, "labels": labels, "annotations": {APP: str(key)}}, pod


def manifests(
    app: App, *, namespace: str, replicas: int, asleep: bool, surroundings: Surroundings, config: PodConfig
) -> tuple[Object, Object]:
    """The Deployment and the Service, as they are to be applied. Raises InvalidArgument."""
    key, name = app.key, name_of(app.key)
    metadata, pod = parts(app, namespace=namespace, surroundings=surroundings, config=config)
    port, protocol = port_of(pod.primary_container())
    with understood():
        _linger(pod)
    template = {"metadata": {"labels": pod.labels, "annotations": pod.annotations}, "spec": pod.spec}
    deployment = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {**metadata, "annotations": {APP: str(key), **({ASLEEP: str(app.revision)} if asleep else {})}},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": round(surroundings.start),
            "selector": {"matchLabels": {APP: name}},
            "template": template,
        },
    }
    service = {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": metadata,
        "spec": {
            "selector": {APP: name},
            "ports": [{"name": protocol or "http", "port": 80, "targetPort": port}],
        },
    }
    return deployment, service


def _linger(pod: Template) -> None:
    """Who is on the way to a pod still finds its program; after that nobody is."""
    seconds = min(_LINGERS, pod.spec.get("terminationGracePeriodSeconds", _LINGERS))
    if seconds:
        pod.primary_container().setdefault("lifecycle", {}).setdefault("preStop", {"sleep": {"seconds": seconds}})


def _served(app: App, namespace: str, labels: Mapping[str, str], surroundings: Surroundings) -> Served:
    key, spec = app.key, app.spec
    template = tasks_pb2.TaskTemplate(
        security_context=security_pb2.SecurityContext(
            run_as=spec.security_context.run_as, secrets=spec.security_context.secrets
        ),
        extended_resources=spec.extended_resources,
    )
    if spec.HasField("container"):
        template.container.CopyFrom(spec.container)
    else:
        template.k8s_pod.CopyFrom(spec.pod)
        template.k8s_pod.primary_container_name = spec.pod.primary_container_name or _MAIN
    return Served(
        project=key.project,
        domain=key.domain,
        namespace=namespace,
        template=template,
        variables={
            "rawoutputdataprefix": f"{surroundings.raw_data}/{key}",
            "executionproject": key.project,
            "executiondomain": key.domain,
        },
        defaults={"PYTHONUNBUFFERED": "1"},
        environment={
            "DO_NOT_TRACK": "1",
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": key.domain,
            "FLYTE_INTERNAL_EXECUTION_PROJECT": key.project,
            "FSSPEC_FILE_AUTO_MKDIR": "1",
            APPS: surroundings.pattern(key.project, key.domain),
            "_U_EP_OVERRIDE": surroundings.endpoint,
            "_U_INSECURE": "true",
            "_U_ORG_NAME": "local",
        },
        labels=labels,
    )


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether it may be asked."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    condition = reading.read(pod).conditions.get("Ready")
    return condition is not None and condition.status == "True"
