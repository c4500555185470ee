"""From an attempt to its pod, in Flyte's order: the PodTemplate below, the task's own pod over it, the run and ours on top.

What the SDK's runtime needs wins over everybody, what the operator configures loses to everybody, and a user's pod template
may say anything that doesn't keep the attempt from being watched: restarts are the executor's, never kubelet's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyteidl2.core import tasks_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.templates import render
from flyte_unified.plugins import container as shared
from flyte_unified.plugins.api import Pod, Refusal, TaskContext, Work
from flyte_unified.plugins.pods import metadata, raw, reading, resources, scheduling, secrets
from flyte_unified.plugins.pods.config import Json, PodConfig, is_object_name
from flyte_unified.plugins.pods.merge import added, on_template

PRIMARY = "primary"
"""The container of a task that brings no pod of its own."""

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_MESSAGES = "FallbackToLogsOnError"
_SECRETS_FIELD = "security_context.secrets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A pod in parts, as operators' plugins need it for their own resources' pod templates."""

    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]
    primary: str

    def primary_container(self) -> dict[str, Any]:
        """The primary container within ``spec``."""
        return named(self.spec, self.primary)


class Pods:
    """The plugin for container and pod tasks; operators' plugins ask it for the pod inside of theirs."""

    def __init__(self, config: PodConfig) -> None:
        self._config = config

    def describe(self, context: TaskContext) -> Work:
        """The attempt's pod; Refusal ``BadTaskSpecification`` for a task that can't become one."""
        try:
            built = self.template(context)
        except InvalidArgument as error:
            return Refusal("BadTaskSpecification", error.message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a pod is any JSON that a user wrote
            return Refusal("BadTaskSpecification", f"k8s_pod.pod_spec or its PodTemplate: it holds what no pod may: {error}")
        return Pod(
            manifest={"metadata": {"labels": built.labels, "annotations": built.annotations}, "spec": built.spec},
            primary=built.primary,
            links=shared.links(context, shared.variables(context)),
        )

    def template(self, context: TaskContext, *, data_side: bool = True) -> Template:
        """The same before it is a manifest. Raises InvalidArgument naming the field.

        Without ``data_side`` nothing is added to an image that has no runtime of Flyte's: the operator's has its own.
        """
        template = context.spec.task_template
        base = self._base(context)
        spec, primary = own_pod(template)
        spec = copy.deepcopy(on_template(reading.mapping(base.get("spec")), spec, primary=primary))
        main = named(spec, primary)
        if not main.get("image"):
            raise InvalidArgument(f"container {primary!r} has no image")
        self._fill(spec, main, context)
        moved = data_side and raw.is_raw(template, main)
        self._secure(spec, context)
        if moved:
            raw.add(spec, main, context, data=self._config.data, store=store(self._config))
        labels, annotations = self._metadata(context, base, primary, moved=moved)
        return Template(labels=labels, annotations=annotations, spec=spec, primary=primary)

    def _base(self, context: TaskContext) -> Json:
        """The PodTemplate's ``template``: the one the task names, else the operator's default; empty where there is none."""
        config = self._config
        own = context.spec.task_template.metadata.pod_template_name
        named = own or context.run_spec.default_settings.pod_template_name
        if not (name := named or config.default_template):
            return {}
        found = named_template(name, context.namespace, config=config)
        if found is None and named:
            field = "metadata.pod_template_name" if own else "run_spec.default_settings.pod_template_name"
            places = dict.fromkeys(filter(None, (context.namespace, config.template_namespace)))
            raise InvalidArgument(f"{field}: there is no PodTemplate {name!r} in {', '.join(places)}")
        return found or {}

    def _fill(self, spec: dict[str, Any], main: dict[str, Any], context: TaskContext) -> None:
        """Commands, environment and resources of the task's containers, and what the pod as a whole needs."""
        config, template = self._config, context.spec.task_template
        given = context.run_spec.default_settings.task_resource_defaults
        extended = scheduling.extended(template.extended_resources, given)
        mirrored = shared.mirrored(context.run_spec)
        known = shared.variables(context)
        wanted = secrets.wanted(template.security_context, context.run_spec.security_context)
        hidden = secrets.variables(wanted, context.action.key, config)
        secret = store(config).get("envFrom", [])
        device = scheduling.accelerator(extended, config).resource
        for container in containers(spec):
            fill_in(container, known)
            container["env"] = _environment(container, hidden, context, config)
            if secret and not raw.data_config(template).enabled:
                container["envFrom"] = added(container.get("envFrom") or (), secret)
            asked = reading.mapping(container.get("resources"))
            complete = resources.complete(
                asked, config=config, accelerator=device, defaults=container is main, given=given, mirrored=mirrored
            )
            if complete:
                container["resources"] = complete
        complete_main(main, config=config)
        scheduling.place(spec, config=config, may_vanish=scheduling.interruptible(context, config))
        scheduling.accelerate(spec, extended, config=config)
        if extended.HasField("shared_memory"):
            scheduling.share_memory(spec, main, extended.shared_memory)
        if (volume := secrets.volume(wanted, context.action.key, config)) is not None:
            for container in containers(spec):
                scheduling.mount(spec, container, volume, secrets.DIRECTORY, field=_SECRETS_FIELD, read_only=True)

    def _secure(self, spec: dict[str, Any], context: TaskContext) -> None:
        """Who the pod is, and how it ends."""
        asked = context.run_spec.security_context.run_as.k8s_service_account
        spec["restartPolicy"] = "Never"
        secure(spec, asked or context.spec.task_template.security_context.run_as.k8s_service_account, config=self._config)

    def _metadata(
        self, context: TaskContext, base: Json, primary: str, *, moved: bool
    ) -> tuple[dict[str, str], dict[str, str]]:
        template, run, config = context.spec.task_template, context.run_spec, self._config
        below, own = reading.mapping(base.get("metadata")), template.k8s_pod.metadata
        labels = metadata.labels(
            ("pods.labels", config.labels),
            ("PodTemplate.template.metadata.labels", reading.mapping(below.get("labels"))),
            ("k8s_pod.metadata.labels", own.labels),
            ("metadata.metadata.labels", template.metadata.metadata.labels),
            ("run_spec.labels", run.labels.values),
            ("labels", metadata.ours(context)),
        )
        annotations = metadata.notes(
            ("pods.annotations", config.annotations),
            ("PodTemplate.template.metadata.annotations", reading.mapping(below.get("annotations"))),
            ("k8s_pod.metadata.annotations", own.annotations),
            ("metadata.metadata.annotations", template.metadata.metadata.annotations),
            ("run_spec.annotations", run.annotations.values),
            ("annotations", {reading.PRIMARY: primary, _DEFAULT_CONTAINER: primary}),
            ("annotations", {reading.UPLOADER: raw.UPLOADER} if moved else {}),
        )
        return labels, annotations


def named_template(name: str, namespace: str, *, config: PodConfig) -> Json | None:
    """The ``template`` of a PodTemplate of the namespace, or of the operator's; None where there is none."""
    places = dict.fromkeys(filter(None, (namespace, config.template_namespace)))
    found = next((t for place in places if (t := config.templates(place, name)) is not None), None)
    return reading.mapping(found.get("template")) if found is not None else None


def complete_main(main: dict[str, Any], *, config: PodConfig) -> None:
    """What the operator says of primary containers that say nothing."""
    if config.image_pull_policy:
        main.setdefault("imagePullPolicy", config.image_pull_policy)
    if config.container_security:
        main.setdefault("securityContext", dict(config.container_security))
    main.setdefault("terminationMessagePolicy", _MESSAGES)


def secure(spec: dict[str, Any], account: str, *, config: PodConfig) -> None:
    """Who a pod is, and the operator's word on it. Raises InvalidArgument for an ``account`` that can be none."""
    spec.setdefault("enableServiceLinks", False)
    if account := str(account or spec.get("serviceAccountName") or config.service_account):
        if not is_object_name(account):
            raise InvalidArgument(f"security_context.run_as.k8s_service_account: {account!r} can't be a ServiceAccount's name")
        spec["serviceAccountName"] = account
        spec.pop("serviceAccount", None)  # the same by its old name
    if config.image_pull_secrets:
        spec.setdefault("imagePullSecrets", [{"name": name} for name in config.image_pull_secrets])
    if config.pod_security:
        spec.setdefault("securityContext", dict(config.pod_security))
    if config.grace is not None:
        spec.setdefault("terminationGracePeriodSeconds", config.grace)


def own_pod(template: tasks_pb2.TaskTemplate) -> tuple[dict[str, Any], str]:
    """The spec of the pod that the task itself describes, new each time, and its primary container's name.

    Raises InvalidArgument.
    """
    if template.HasField("container"):
        return {"containers": [_container(template.container)]}, PRIMARY
    if not template.HasField("k8s_pod"):
        raise InvalidArgument(f"a task of type {template.type!r} has neither container nor k8s_pod")
    spec = shared.plain(template.k8s_pod.pod_spec)
    found = shared.primary(template)
    if found is None or not (name := reading.text(found.get("name"))):
        names = ", ".join(repr(entry.get("name")) for entry in reading.mappings(spec.get("containers"))) or "none"
        raise InvalidArgument(
            f"k8s_pod.primary_container_name: {shared.primary_name(template)!r} is none of the pod's containers ({names})"
        )
    return spec, name


def _container(task: tasks_pb2.Container) -> dict[str, Any]:
    written: dict[str, Any] = {
        "name": PRIMARY,
        "image": task.image,
        "command": list(task.command),
        "args": list(task.args),
        "env": [{"name": entry.key, "value": entry.value} for entry in task.env],
        "resources": resources.written(task.resources),
        "ports": [_port(port) for port in task.ports],
    }
    return {key: value for key, value in written.items() if value}


def _port(port: tasks_pb2.ContainerPort) -> dict[str, Any]:
    return {"containerPort": port.container_port} | ({"name": port.name} if port.name else {})


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The task's containers, each a dict to be changed."""
    return [c for key in ("initContainers", "containers") for c in spec.get(key) or () if isinstance(c, dict)]


def named(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(container for container in spec["containers"] if container.get("name") == name)


def fill_in(container: dict[str, Any], known: Mapping[str, str]) -> None:
    for key in ("command", "args"):
        if container.get(key):
            container[key] = list(render((str(text) for text in container[key]), known))
        else:
            container.pop(key, None)
    container["env"] = [
        {**entry, "value": render((str(entry["value"]),), known)[0]} if entry.get("value") else entry
        for entry in reading.mappings(container.get("env"))
    ]


def _environment(container: Json, hidden: Sequence[Json], context: TaskContext, config: PodConfig) -> list[dict[str, Any]]:
    """Each variable once. Ours stand first, so that the user's may refer to them as ``$(RUN_NAME)``."""
    store = [] if raw.data_config(context.spec.task_template).enabled else literal(config.store)
    run = {entry.key: entry.value for entry in context.run_spec.envs.values}
    layers = (*store, *literal(config.environment), *container["env"], *literal(run), *hidden)
    said = {str(entry.get("name")): dict(entry) for entry in layers}
    actions = str(said.get(shared.ACTIONS, {}).get("value", "1"))
    system = {str(entry["name"]): entry for entry in literal(shared.system(context, actions=actions))}
    return list((system | said | system).values())


def has_runtime(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether the task's program is Flyte's own, as far as its command line tells."""
    try:
        spec, primary = own_pod(template)
        return not raw.is_raw(template, named(spec, primary))
    except InvalidArgument:  # a connector's, which has no program
        return True


def store(config: PodConfig) -> dict[str, list[Json]]:
    """How a container reaches the store."""
    found: dict[str, list[Json]] = {"env": [*literal(config.store)]}
    return found | ({"envFrom": [{"secretRef": {"name": config.store_secret}}]} if config.store_secret else {})


def literal(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in environment.items()]
