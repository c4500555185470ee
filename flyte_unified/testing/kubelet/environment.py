"""A container's environment and words: values, references, and ``$(VAR)`` (kubernetes.io, "Define Dependent
Environment Variables").

Pure: what references point to is handed in by ``Sources``, read from the API server before.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.testing.kubelet import quantities

Object = dict[str, Any]

LOOPBACK = "127.0.0.1"
_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


class ConfigError(FailedPrecondition):
    """A container refers to what does not exist: CreateContainerConfigError."""


@dataclass(slots=True)
class Sources:
    """Config maps and secrets by (kind, name), as ``data`` in bytes; None for one that does not exist."""

    data: dict[tuple[str, str], dict[str, bytes] | None] = field(default_factory=dict)

    def get(self, kind: str, reference: Mapping[str, Any], *, name: str = "") -> dict[str, bytes] | None:
        """The data of ``reference``, None if it is optional and missing. Raises ConfigError with the kubelet's words."""
        name = name or reference["name"]
        found = self.data.get((kind, name))
        if found is None and not reference.get("optional"):
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        return found


def decoded(obj: Object) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret."""
    values = obj.get("data") or {}
    if obj.get("kind") == "Secret" or "type" in obj:
        return {key: base64.b64decode(value) for key, value in values.items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in values.items()} | binary


def references(pod: Object) -> set[tuple[str, str]]:
    """The config maps and secrets that a pod's containers and volumes name, as (kind, name)."""
    found: set[tuple[str, str]] = set()
    for container in containers(pod):
        for source in container.get("envFrom") or ():
            found |= {("ConfigMap", r["name"]) for r in [source.get("configMapRef")] if r}
            found |= {("Secret", r["name"]) for r in [source.get("secretRef")] if r}
        for variable in container.get("env") or ():
            given = variable.get("valueFrom") or {}
            found |= {("ConfigMap", r["name"]) for r in [given.get("configMapKeyRef")] if r}
            found |= {("Secret", r["name"]) for r in [given.get("secretKeyRef")] if r}
    for volume in pod["spec"].get("volumes") or ():
        for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
            if config_map := source.get("configMap"):
                found.add(("ConfigMap", config_map["name"]))
            if secret := source.get("secret"):
                found.add(("Secret", secret.get("secretName") or secret.get("name")))
    return found


def containers(pod: Object) -> list[Object]:
    """Init containers, then containers."""
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def variables(
    container: Object, *, pod: Object, base: Mapping[str, str], sources: Sources, capacity: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of ``container``. ``base`` is the image's. Raises ConfigError."""
    env = dict(base)
    for source in container.get("envFrom") or ():
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference := source.get(key):
                data = sources.get(kind, reference) or {}
                env |= {source.get("prefix", "") + name: value.decode(errors="replace") for name, value in data.items()}
    for variable in container.get("env") or ():
        if given := variable.get("valueFrom"):
            value = _value_from(given, container=container, pod=pod, sources=sources, capacity=capacity)
        else:
            value = expanded(variable.get("value", ""), env)
        if value is not None:
            env[variable["name"]] = value
    return env


def expanded(text: str, env: Mapping[str, str]) -> str:
    """``text`` with ``$(NAME)`` replaced where NAME is known; ``$$`` is a dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def words(container: Object, env: Mapping[str, str], *, program: Sequence[str] = ()) -> list[str]:
    """Command and arguments, expanded; ``program`` is the image's."""
    return [expanded(word, env) for word in [*(container.get("command") or program), *(container.get("args") or ())]]


def _value_from(given: Object, *, container: Object, pod: Object, sources: Sources, capacity: Mapping[str, str]) -> str | None:
    if reference := given.get("fieldRef"):
        return pod_field(pod, reference["fieldPath"])
    if reference := given.get("resourceFieldRef"):
        return resource_field(pod, reference, container=container, capacity=capacity)
    for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference := given.get(key):
            data = sources.get(kind, reference)
            if data is not None and reference["key"] in data:
                return data[reference["key"]].decode(errors="replace")
            if reference.get("optional"):
                return None
            where = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {where}")
    raise ConfigError(f"valueFrom of {', '.join(given) or 'nothing'} is not known to this node")


def pod_field(pod: Object, path: str) -> str:
    """A field of the pod as the downward API gives it. Raises ConfigError for one that it does not give."""
    metadata, spec = pod["metadata"], pod["spec"]
    if match := _SUBSCRIPT.match(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values: Iterable[tuple[str, str]] = sorted((metadata.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f'{name}="{value}"' for name, value in values)
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        **dict.fromkeys(("status.hostIP", "status.hostIPs"), LOOPBACK),
        **dict.fromkeys(("status.podIP", "status.podIPs"), (pod.get("status") or {}).get("podIP", LOOPBACK)),
    }
    if path not in known:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(known[path])


def resource_field(pod: Object, reference: Object, *, container: Object | None, capacity: Mapping[str, str]) -> str:
    """A limit or request of a container, in units of the divisor; what has no limit may use the whole node."""
    if name := reference.get("containerName"):
        container = next((c for c in containers(pod) if c["name"] == name), None)
    if container is None:
        raise ConfigError(f"container {reference.get('containerName')} not found")
    which, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(which) or {}).get(resource)
    if value is None and which == "limits":
        value = capacity.get(resource, "0")
    return quantities.divided(str(value if value is not None else 0), str(reference.get("divisor", "")))


def port_number(container: Object, port: str | int) -> int:
    """A probe's port, which may be the name of one of the container's. Raises ConfigError."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    ports: Sequence[Object] = container.get("ports") or ()
    for declared in ports:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ConfigError(f"couldn't find port: {port}")
