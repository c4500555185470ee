"""What an app's process is: command, environment, port, from its container or its pod's primary one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.core import security_pb2, tasks_pb2

from flyte_unified.apps.model import AppKey
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument
from flyte_unified.core.quantities import quantity
from flyte_unified.core.templates import render
from flyte_unified.plugins.container import primary

_PORT = 8080
_LAST_PORT = 65_535
_MAIN = "app"
"""What the SDK calls a pod's primary container."""
_METRICS = "--prometheus_port"
_HTTP2 = "h2c"
"""The name of a port that says so (as Knative has it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    command: tuple[str, ...]
    """With its arguments."""
    environment: Mapping[str, str]
    image: str
    port: int
    http2: bool
    memory_limit: int | None
    secrets: tuple[security_pb2.Secret, ...]

    def line(self, port: int) -> tuple[str, ...]:
        """The whole command line. Where it can't have its own port, the words that say so say ``port``."""
        if port == self.port:
            return self.command
        own = re.compile(rf"(^|[=:]){self.port}$")
        words = [own.sub(rf"\g<1>{port}", word) for word in self.command]
        if _METRICS in words[:-1]:  # the SDK's connectors have all the same one
            words[words.index(_METRICS) + 1] = "0"
        return tuple(words)

    def told(self, port: int) -> dict[str, str]:
        """How it may learn of its port: ``$PORT`` (as with Knative), and what ``get_port`` of the SDK looks at."""
        if port == self.port:
            return {"PORT": str(port)}
        return {"PORT": str(port), "_F_APPLE_SILICON_ON_HOST": "1", "_F_APPLE_SILICON_HOST_PORT": str(port)}


def payload(key: AppKey, spec: idl.Spec, *, raw_data: str) -> Payload:
    """Raises InvalidArgument for a spec that is none, FailedPrecondition for one that can't run here."""
    if spec.HasField("container"):
        container = spec.container
        command, image = [*container.command, *container.args], container.image
        environment = {entry.key: entry.value for entry in container.env}
        ports = [(port.container_port, port.name) for port in container.ports]
        limit = next((e.value for e in container.resources.limits if e.name == tasks_pb2.Resources.MEMORY), "")
    else:
        found = _main(spec.pod)
        command, image = [*_strings(found.get("command")), *_strings(found.get("args"))], str(found.get("image", ""))
        environment = {str(e["name"]): str(e.get("value", "")) for e in _entries(found.get("env")) if "valueFrom" not in e}
        ports = [(int(e["containerPort"]), str(e.get("name", ""))) for e in _entries(found.get("ports"))]
        limit = str(((found.get("resources") or {}).get("limits") or {}).get("memory", ""))
    if not command:
        raise FailedPrecondition(
            f"app {key} runs the program of its container image, which takes a container: here an app is a local process. "
            "Say what it runs with AppEnvironment(command=...) or args=..., or with a function of your own (@env.server)"
        )
    port, name = ports[0] if ports else (_PORT, "")
    if not 0 < port <= _LAST_PORT:
        raise InvalidArgument(f"app.spec: port {port} is none: ports are 1 to {_LAST_PORT}")
    known = {"rawoutputdataprefix": raw_data, "executionproject": key.project, "executiondomain": key.domain}
    return Payload(
        command=render(command, known),
        environment=environment,
        image=image,
        port=port,
        http2=name == _HTTP2,
        memory_limit=int(quantity(limit, field="resources.memory")) if limit else None,
        secrets=tuple(spec.security_context.secrets),
    )


def _main(pod: tasks_pb2.K8sPod) -> Mapping[str, Any]:
    named = tasks_pb2.K8sPod()
    named.CopyFrom(pod)
    named.primary_container_name = pod.primary_container_name or _MAIN
    found = primary(tasks_pb2.TaskTemplate(k8s_pod=named))
    if found is None:
        raise InvalidArgument(f"app.spec.pod has no container {named.primary_container_name!r}")
    return found


def _strings(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _entries(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
