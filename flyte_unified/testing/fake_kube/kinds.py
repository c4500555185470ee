"""Defaults, first status and checks of the built-in kinds other than pods: as much as clients can tell."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from flyte_unified.testing.fake_kube import custom, pods
from flyte_unified.testing.fake_kube.errors import Cause, forbidden_field, invalid_value, required
from flyte_unified.testing.fake_kube.resources import Object
from flyte_unified.testing.fake_kube.selectors import matches, selector_requirements

KEEP_STATUS = frozenset({("", "nodes")})
"""Kinds whose creator writes the status too."""

_BUDGET = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
_MAX_DATA = 1024 * 1024
_addresses = itertools.count(10)


def _namespace(content: Object) -> None:
    if not content["metadata"].get("deletionTimestamp"):
        content.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    content["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = content["metadata"].get("name", "")


def _secret(content: Object) -> None:
    content.setdefault("type", "Opaque")
    for key, value in content.pop("stringData", {}).items():
        content.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _service(content: Object) -> None:
    spec = content.setdefault("spec", {})
    defaults = {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
    }
    for key, value in defaults.items():
        spec.setdefault(key, value)
    spec.setdefault("ipFamilies", ["IPv4"])
    if "clusterIP" not in spec:
        number = next(_addresses)
        spec["clusterIP"] = f"10.96.{number // 256 % 256}.{number % 256}"
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _template(content: Object) -> None:
    """Workloads: the pods that they would make."""
    spec = content.setdefault("spec", {})
    if isinstance(spec.get("template"), dict):
        pods.default_spec(spec["template"].setdefault("spec", {}))


def _job(content: Object) -> None:
    spec = content.setdefault("spec", {})
    defaults: dict[str, Any] = {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
    defaults |= {"manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed"}
    for key, value in defaults.items():
        spec.setdefault(key, value)
    spec.setdefault("completions", spec["parallelism"])
    uid, name = content["metadata"].get("uid", ""), content["metadata"].get("name", "")
    if not spec["manualSelector"] and "selector" not in spec and isinstance(spec.get("template"), dict):
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels |= {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid}
        labels |= {"batch.kubernetes.io/job-name": name, "job-name": name}
        content["metadata"].setdefault("labels", dict(labels))
    _template(content)


def _deployment(content: Object) -> None:
    spec = content.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("maxUnavailable", "25%")
        strategy["rollingUpdate"].setdefault("maxSurge", "25%")
    _template(content)


def _replicated(content: Object) -> None:
    content.setdefault("spec", {}).setdefault("replicas", 1)
    _template(content)


def _pod_template(content: Object) -> None:
    if isinstance(content.get("template"), dict):
        content["template"].setdefault("metadata", {})
        pods.default_spec(content["template"].setdefault("spec", {}))


def _event_times(content: Object) -> None:
    if content["apiVersion"] != "v1":
        content.setdefault("deprecatedSource", {})
        for key in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
            content.setdefault(key, None)
        return
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        content.setdefault(key, None)
    content.setdefault("source", {})
    for key in ("reportingComponent", "reportingInstance"):
        content.setdefault(key, "")


def _subjects(content: Object) -> None:
    content["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", **content.get("roleRef", {})}
    for subject in content.get("subjects") or ():
        if subject.get("kind") != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _claim(content: Object) -> None:
    content.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _policy(content: Object) -> None:
    spec = content.setdefault("spec", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _priority(content: Object) -> None:
    content.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _node(content: Object) -> None:
    content.setdefault("spec", {})
    status = content.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))
    endpoint = status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {})
    endpoint.setdefault("Port", 0)
    info = status.setdefault("nodeInfo", {})
    for key in ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
                "kubeProxyVersion", "operatingSystem", "architecture"):  # fmt: skip
        info.setdefault(key, "")


_APPS = "apps"
DEFAULTS: Mapping[tuple[str, str], Callable[[Object], None]] = {
    ("", "namespaces"): _namespace,
    ("", "secrets"): _secret,
    ("", "services"): _service,
    ("", "podtemplates"): _pod_template,
    ("", "persistentvolumeclaims"): _claim,
    ("", "nodes"): _node,
    ("", "events"): _event_times,
    ("batch", "jobs"): _job,
    (_APPS, "deployments"): _deployment,
    (_APPS, "replicasets"): _replicated,
    (_APPS, "statefulsets"): _replicated,
    (_APPS, "daemonsets"): _template,
    ("rbac.authorization.k8s.io", "rolebindings"): _subjects,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _subjects,
    ("scheduling.k8s.io", "priorityclasses"): _priority,
    ("networking.k8s.io", "networkpolicies"): _policy,
    ("apiextensions.k8s.io", "customresourcedefinitions"): custom.default,
}
INITIAL_STATUS: Mapping[tuple[str, str], Callable[[Object], Object]] = {
    ("", "namespaces"): lambda _: {"phase": "Active"},
    ("", "pods"): pods.first_status,
    ("", "services"): lambda _: {"loadBalancer": {}},
    ("", "persistentvolumeclaims"): lambda _: {"phase": "Pending"},
    (_APPS, "deployments"): lambda _: {},
    (_APPS, "replicasets"): lambda _: {"replicas": 0},
    (_APPS, "statefulsets"): lambda _: {"availableReplicas": 0, "replicas": 0},
    ("batch", "jobs"): lambda _: {},
    ("policy", "poddisruptionbudgets"): lambda _: dict.fromkeys(_BUDGET, 0),
    ("networking.k8s.io", "ingresses"): lambda _: {"loadBalancer": {}},
    ("apiextensions.k8s.io", "customresourcedefinitions"): custom.first_status,
}


def _data(content: Object, old: Object | None) -> list[Cause]:
    """Config maps and secrets: 1 MiB at most, and fixed where they say so."""
    parts = {**(content.get("data") or {}), **(content.get("binaryData") or {})}
    causes = [
        invalid_value(
            f"data[{key}]",
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
            "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        )
        for key in parts
        if not key or not all(char.isascii() and (char.isalnum() or char in "-._") for char in key)
    ]
    if sum(len(value.encode()) for value in parts.values()) > _MAX_DATA:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_MAX_DATA} bytes", "[]"))
    if old and content.get("type") != old.get("type"):
        causes.append(invalid_value("type", content.get("type"), "field is immutable"))
    if old and old.get("immutable"):
        causes += [
            forbidden_field(key, "field is immutable when `immutable` is set")
            for key in ("data", "binaryData", "immutable")
            if content.get(key) != old.get(key)
        ]
    return causes


def _lease(content: Object, _: Object | None) -> list[Cause]:
    spec, causes = content.get("spec") or {}, []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        causes.append(invalid_value("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        causes.append(invalid_value("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"))
    return causes


def _event(content: Object, _: Object | None) -> list[Cause]:
    namespace, about = content["metadata"].get("namespace", ""), content.get("involvedObject") or content.get("regarding") or {}
    if about.get("namespace", "") == namespace or (not about.get("namespace") and namespace == "default"):
        return []
    return [invalid_value("involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace")]


def _workload(content: Object, old: Object | None) -> list[Cause]:
    """The selector is fixed and selects the template's labels."""
    spec = content.get("spec") or {}
    selector, template = spec.get("selector"), spec.get("template") or {}
    if not selector:
        return [required("spec.selector")]
    causes = list(pods.check_spec(template.get("spec") or {}, "spec.template.spec"))
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not matches(selector_requirements(selector), labels):
        causes.append(invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    if old and selector != old["spec"].get("selector"):
        causes.append(invalid_value("spec.selector", selector, "field is immutable"))
    return causes


def _check_job(content: Object, old: Object | None) -> list[Cause]:
    causes = _workload(content, old)
    spec = content.get("spec") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    if template.get("restartPolicy") not in ("Never", "OnFailure"):
        text = 'Required value: valid values: "OnFailure", "Never"'
        causes.append(Cause("FieldValueRequired", text, "spec.template.spec.restartPolicy"))
    if old and not old["spec"].get("suspend") and spec.get("template") != old["spec"].get("template"):
        causes.append(invalid_value("spec.template", "template", "field is immutable"))
    return causes


def _binding(content: Object, old: Object | None) -> list[Cause]:
    role = content.get("roleRef") or {}
    causes = [required(f"roleRef.{key}") for key in ("kind", "name") if not role.get(key)]
    if old and role != old.get("roleRef"):
        causes.append(invalid_value("roleRef", role, "cannot change roleRef"))
    return causes


def _check_pod_template(content: Object, _: Object | None) -> list[Cause]:
    return list(pods.check_spec((content.get("template") or {}).get("spec") or {}, "template.spec"))


CHECKS: Mapping[tuple[str, str], Callable[[Object, Object | None], list[Cause]]] = {
    ("", "configmaps"): _data,
    ("", "secrets"): _data,
    ("", "events"): _event,
    ("", "podtemplates"): _check_pod_template,
    ("coordination.k8s.io", "leases"): _lease,
    ("batch", "jobs"): _check_job,
    (_APPS, "deployments"): _workload,
    (_APPS, "replicasets"): _workload,
    (_APPS, "statefulsets"): _workload,
    (_APPS, "daemonsets"): _workload,
    ("rbac.authorization.k8s.io", "rolebindings"): _binding,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _binding,
    ("apiextensions.k8s.io", "customresourcedefinitions"): custom.check,
}
