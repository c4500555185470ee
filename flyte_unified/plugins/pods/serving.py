"""Pods that serve: from an app's container or pod to the template of its replicas.

As a task's pod, in the same order of who wins, but for good: a container that ends is started again, and a pod has visitors
only while it listens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flyteidl2.core import tasks_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.plugins.pods import build, metadata, reading, resources, scheduling, secrets
from flyte_unified.plugins.pods.build import Template
from flyte_unified.plugins.pods.config import SAFE_TO_EVICT, PodConfig
from flyte_unified.plugins.pods.merge import added, on_template

PORT = 8080
"""Of a container that names none."""
_CONTAINER = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is to be served. ``template`` has its container or pod, its secrets, its account and its devices."""

    project: str
    domain: str
    namespace: str
    template: tasks_pb2.TaskTemplate
    variables: Mapping[str, str]
    """For command lines, keys in lower case."""
    defaults: Mapping[str, str]
    """Variables, where nobody says another value."""
    environment: Mapping[str, str]
    """Those that have one, whatever the user says."""
    labels: Mapping[str, str]


def serving(served: Served, config: PodConfig) -> Template:
    """Raises InvalidArgument naming the field."""
    with understood():
        return _template(served, config)


@contextmanager
def understood() -> Iterator[None]:
    """What a user's pod, which is any JSON, holds and no pod may, is InvalidArgument."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidArgument(f"app.spec.pod or its PodTemplate: it holds what no pod may: {told}") from error


def port_of(container: Mapping[str, Any]) -> tuple[int, str]:
    """The port where it is asked, and what it is called."""
    for port in reading.mappings(container.get("ports")):
        return int(port["containerPort"]), reading.text(port.get("name"))
    return PORT, ""


def asked_at(pod: Mapping[str, Any]) -> tuple[int, str]:
    """The same of a pod, or of a template."""
    main = reading.primary_name(pod)
    return port_of(next(one for one in pod["spec"]["containers"] if one["name"] == main))


def _template(served: Served, config: PodConfig) -> Template:
    template = served.template
    name = config.default_template
    base = (build.named_template(name, served.namespace, config=config) or {}) if name else {}
    own, primary = build.own_pod(template)
    spec = copy.deepcopy(on_template(reading.mapping(base.get("spec")), own, primary=primary))
    main = build.named(spec, primary)
    if not main.get("image"):
        raise InvalidArgument(f"container {primary!r} has no image")
    _fill(spec, main, served, config)
    account = template.security_context.run_as.k8s_service_account
    spec["restartPolicy"] = "Always"
    build.secure(spec, account, config=config)
    below = reading.mapping(base.get("metadata"))
    labels = metadata.labels(
        ("pods.labels", config.labels),
        ("PodTemplate.template.metadata.labels", reading.mapping(below.get("labels"))),
        ("app.spec.pod.metadata.labels", template.k8s_pod.metadata.labels),
        ("labels", served.labels),
    )
    ours = {name: value for name, value in config.annotations.items() if name != SAFE_TO_EVICT}  # there will be another one
    annotations = metadata.notes(
        ("pods.annotations", ours),
        ("PodTemplate.template.metadata.annotations", reading.mapping(below.get("annotations"))),
        ("app.spec.pod.metadata.annotations", template.k8s_pod.metadata.annotations),
        ("annotations", {reading.PRIMARY: primary, _CONTAINER: primary}),
    )
    return Template(labels=labels, annotations=annotations, spec=spec, primary=primary)


def _fill(spec: dict[str, Any], main: dict[str, Any], served: Served, config: PodConfig) -> None:
    extended = served.template.extended_resources
    wanted = secrets.wanted(served.template.security_context)
    key = ActionKey(served.project, served.domain, "", "")
    hidden = secrets.variables(wanted, key, config)
    store = build.store(config)
    device = scheduling.accelerator(extended, config).resource
    port, _ = port_of(main)
    main.setdefault("ports", [{"containerPort": port}])
    for container in build.containers(spec):
        build.fill_in(container, served.variables)
        layers = (
            *build.literal(served.defaults),
            *store["env"],
            *build.literal(config.environment),
            *container["env"],
            *hidden,
        )
        system = build.literal({**served.environment, **({"PORT": str(port)} if container is main else {})})
        container["env"] = list({str(entry.get("name")): dict(entry) for entry in (*layers, *system)}.values())
        if "envFrom" in store:
            container["envFrom"] = added(container.get("envFrom") or (), store["envFrom"])
        asked = reading.mapping(container.get("resources"))
        complete = resources.complete(
            asked, config=config, accelerator=device, defaults=container is main, given=run_pb2.TaskResourceDefaults()
        )
        if complete:
            container["resources"] = complete
    build.complete_main(main, config=config)
    main.setdefault("readinessProbe", {"tcpSocket": {"port": port}, "periodSeconds": 1, "timeoutSeconds": 2})
    scheduling.place(spec, config=config, may_vanish=False)
    scheduling.accelerate(spec, extended, config=config)
    if extended.HasField("shared_memory"):
        scheduling.share_memory(spec, main, extended.shared_memory)
    if (volume := secrets.volume(wanted, key, config)) is not None:
        for container in build.containers(spec):
            field = "app.spec.security_context.secrets"
            scheduling.mount(spec, container, volume, secrets.DIRECTORY, field=field, read_only=True)
