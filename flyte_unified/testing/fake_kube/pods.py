"""Defaults and checks of pods and of the templates that other kinds make pods from.

Source: k8s.io/kubernetes/pkg/apis/core, its v1/defaults.go and validation/validation.go: what tasks' pods can meet.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flyte_unified.testing.fake_kube import quantities
from flyte_unified.testing.fake_kube.errors import Cause, duplicate, forbidden_field, invalid_value, required, unsupported
from flyte_unified.testing.fake_kube.metadata import dns_label, dns_subdomain, label_value, qualified_name
from flyte_unified.testing.fake_kube.resources import Object

_EVICTIONS = ("not-ready", "unreachable")
_FILE_MODES = {"secret": 0o644, "configMap": 0o644, "projected": 0o644, "downwardAPI": 0o644}
_ENV_NAME = re.compile(r"[-._a-zA-Z0-9\x20-\x3c\x3e-\x7e]+")
_NATIVE = {"cpu", "memory", "ephemeral-storage"}
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_KINDS_OF_CONTAINERS = ("initContainers", "containers")


def default(content: Object) -> None:
    """A pod's own defaults and those that admission adds."""
    spec = content.setdefault("spec", {})
    default_spec(spec)
    spec.setdefault("priority", 0)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    _status(content.get("status") or {})
    tolerations = spec.setdefault("tolerations", [])
    for name in _EVICTIONS:
        key = f"node.kubernetes.io/{name}"
        if not any(one.get("key", key) == key and one.get("effect", "NoExecute") == "NoExecute" for one in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def _status(status: Object) -> None:
    """Times that are not known are null on the wire, which clients must bear."""
    for condition in status.get("conditions") or ():
        for key in ("lastProbeTime", "lastTransitionTime"):
            condition.setdefault(key, None)
    for kind in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(kind) or ():
            for part in ("lastState", "state"):
                state = container.setdefault(part, {})
                for key in ("startedAt", "finishedAt"):
                    if "terminated" in state:
                        state["terminated"].setdefault(key, None)
                if "running" in state:
                    state["running"].setdefault("startedAt", None)


def default_spec(spec: Object) -> None:
    """The defaults of a pod template's spec too."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for kind in _KINDS_OF_CONTAINERS:
        for container in spec.get(kind) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        if len(volume) == 1:
            volume["emptyDir"] = {}
        for key, mode in _FILE_MODES.items():
            if key in volume:
                volume[key].setdefault("defaultMode", mode)
        if "hostPath" in volume:
            volume["hostPath"].setdefault("type", "")


def _container(container: Object) -> None:
    resources = container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    latest = tag == "latest" or (not tag and "@" not in image)
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for probe in (container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")):
        if probe:
            for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
                probe.setdefault(key, value)
            if "httpGet" in probe:
                probe["httpGet"].setdefault("path", "/")
                probe["httpGet"].setdefault("scheme", "HTTP")


def first_status(content: Object) -> Object:
    return {"phase": "Pending", "qosClass": _quality(content["spec"])}


def _quality(spec: Mapping[str, Any]) -> str:
    """The class of service that the requests and limits amount to."""
    sets = [one.get("resources") or {} for kind in _KINDS_OF_CONTAINERS for one in spec.get(kind) or ()]
    named = [{name for part in ("requests", "limits") for name in one.get(part) or {}} & {"cpu", "memory"} for one in sets]
    if not any(named):
        return "BestEffort"
    guaranteed = all(
        (one.get("limits") or {}).get(name) and one["limits"][name] == (one.get("requests") or {}).get(name)
        for one in sets
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def check(content: Object, old: Object | None) -> list[Cause]:
    if old is None:
        return list(check_spec(content["spec"], "spec"))
    return list(_check_update(content["spec"], old["spec"]))


def check_spec(spec: Mapping[str, Any], path: str) -> Iterator[Cause]:
    """What is wrong with a pod's or a template's spec."""
    volumes = [volume.get("name", "") for volume in spec.get("volumes") or ()]
    yield from _names(volumes, f"{path}.volumes")
    for index, volume in enumerate(spec.get("volumes") or ()):
        if len(volume) > 2:
            yield forbidden_field(f"{path}.volumes[{index}].{max(volume)}", "may not specify more than 1 volume type")
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: list[str] = []
    for kind in _KINDS_OF_CONTAINERS:
        for index, container in enumerate(spec.get(kind) or ()):
            where = f"{path}.{kind}[{index}]"
            yield from _check_container(container, where, volumes, names)
    yield from _choice(spec, "restartPolicy", ("Always", "OnFailure", "Never"), path)
    yield from _choice(spec, "dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"), path)
    if (deadline := spec.get("activeDeadlineSeconds")) is not None and not 0 < deadline < 1 << 31:
        yield invalid_value(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for key in ("serviceAccountName", "priorityClassName", "schedulerName", "nodeName"):
        if spec.get(key) and (why := dns_subdomain(spec[key])):
            yield invalid_value(f"{path}.{key}", spec[key], why)
    for key, value in (spec.get("nodeSelector") or {}).items():
        if why := qualified_name(key):
            yield invalid_value(f"{path}.nodeSelector", key, why)
        if why := label_value(value):
            yield invalid_value(f"{path}.nodeSelector", value, why)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"{path}.tolerations[{index}]")


def _names(names: list[str], path: str) -> Iterator[Cause]:
    for index, name in enumerate(names):
        where = f"{path}[{index}].name"
        if not name:
            yield required(where)
        elif why := dns_label(name):
            yield invalid_value(where, name, why)
        elif name in names[:index]:
            yield duplicate(where, name)


def _choice(holder: Mapping[str, Any], key: str, choices: tuple[str, ...], path: str) -> Iterator[Cause]:
    if holder.get(key) not in (None, *choices):
        yield unsupported(f"{path}.{key}", holder[key], choices)


def _check_container(container: Mapping[str, Any], path: str, volumes: list[str], names: list[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif why := dns_label(name):
        yield invalid_value(f"{path}.name", name, why)
    if name and name in names:
        yield duplicate(f"{path}.name", name)
    names.append(name)
    image = container.get("image", "")
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        yield invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, f"{path}.env[{index}]")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name", "") not in volumes:
            yield Cause("FieldValueNotFound", f'Not found: "{mount.get("name", "")}"', f"{where}.name")
        if not mount.get("mountPath"):
            yield required(f"{where}.mountPath")
    for index, port in enumerate(container.get("ports") or ()):
        if not 0 < port.get("containerPort", 0) < 65536:
            why = "must be between 1 and 65535, inclusive"
            yield invalid_value(f"{path}.ports[{index}].containerPort", port.get("containerPort", 0), why)
    yield from _choice(container, "imagePullPolicy", ("Always", "IfNotPresent", "Never"), path)
    yield from _choice(container, "terminationMessagePolicy", ("File", "FallbackToLogsOnError"), path)
    yield from _check_resources(container.get("resources") or {}, f"{path}.resources")


def _variable(variable: Mapping[str, Any], path: str) -> Iterator[Cause]:
    name, source = variable.get("name", ""), variable.get("valueFrom")
    if not name:
        yield required(f"{path}.name")
    elif not _ENV_NAME.fullmatch(name):
        yield invalid_value(
            f"{path}.name",
            name,
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
        )
    if source is None:
        return
    if len(source) != 1:
        text = (
            "may not have more than one field specified at a time"
            if source
            else "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        )
        yield invalid_value(f"{path}.valueFrom", "", text)
    if variable.get("value"):
        yield invalid_value(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")


def _check_resources(resources: Mapping[str, Any], path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for part, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            where = f"{path}.{part}[{name}]"
            if why := qualified_name(name):
                yield invalid_value(where, name, why)
            elif "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
                yield invalid_value(where, name, "must be a standard resource type or fully qualified")
            amount = quantities.parse(value)
            if amount < 0:
                yield invalid_value(where, value, "must be greater than or equal to 0")
            if "/" in name and amount.denominator != 1:
                yield invalid_value(where, value, "must be an integer")
    for name, value in requests.items():
        where = f"{path}.requests"
        if "/" not in name and name in limits and quantities.parse(value) > quantities.parse(limits[name]):
            yield invalid_value(where, value, f"must be less than or equal to {name} limit of {limits[name]}")
        elif "/" in name and value != limits.get(name):
            why = f"must be equal to {name} limit" if name in limits else ""
            yield (
                invalid_value(where, value, f"{why} of {limits[name]}")
                if why
                else Cause(
                    "FieldValueRequired", "Required value: Limit must be set for non overcommitable resources", f"{path}.limits"
                )
            )


def _toleration(toleration: Mapping[str, Any], path: str) -> Iterator[Cause]:
    key, operator, effect = (toleration.get(name, "") for name in ("key", "operator", "effect"))
    if key and (why := qualified_name(key)):
        yield invalid_value(f"{path}.key", key, why)
    if not key and operator != "Exists":
        yield invalid_value(
            f"{path}.operator",
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if operator == "Exists" and toleration.get("value"):
        yield invalid_value(f"{path}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    if operator not in ("", "Equal", "Exists"):
        yield unsupported(f"{path}.operator", operator, ["Equal", "Exists"])
    if effect not in ("", *_EFFECTS):
        yield unsupported(f"{path}.effect", effect, _EFFECTS)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield invalid_value(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")


def _check_update(spec: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Cause]:
    """Nearly all of a pod's spec is fixed once it exists."""
    deadline, before = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if before is not None and (deadline is None or deadline > before):
        text = (
            "must be less than or equal to previous value"
            if deadline
            else "must not update from a positive integer to nil value"
        )
        yield invalid_value("spec.activeDeadlineSeconds", deadline, text)
    tolerations = spec.get("tolerations") or []
    if any(one not in tolerations for one in old.get("tolerations") or ()):
        yield forbidden_field("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    allowed = copy.deepcopy(dict(spec))
    for key in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        allowed.pop(key, None)
        if key in old:
            allowed[key] = old[key]
    for kind in _KINDS_OF_CONTAINERS:
        for container, present in zip(allowed.get(kind) or (), old.get(kind) or (), strict=False):
            container["image"] = present["image"]
    if allowed != old:
        yield forbidden_field("spec", _MUTABLE)


def check_status(content: Object, old: Object) -> list[Cause]:
    """A container that ended stays ended where its pod does not restart it."""
    policy = content["spec"].get("restartPolicy")
    if policy == "Always":
        return []
    causes = []
    for kind in ("containerStatuses", "initContainerStatuses"):
        now = {one["name"]: one for one in (content.get("status") or {}).get(kind) or ()}
        for index, before in enumerate((old.get("status") or {}).get(kind) or ()):
            ended = (before.get("state") or {}).get("terminated")
            present = (now.get(before["name"]) or {}).get("state") or {}
            if (
                ended
                and not (ended["exitCode"] and policy == "OnFailure")
                and before["name"] in now
                and "terminated" not in present
            ):
                causes.append(
                    forbidden_field(f"status.{kind}[{index}].state", "may not be transitioned to non-terminated state")
                )
    return causes
