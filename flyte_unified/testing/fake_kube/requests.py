"""From an HTTP request to what is asked: the path's parts, the verb, the body and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from flyte_unified.testing.fake_kube import errors
from flyte_unified.testing.fake_kube.api import Call, Deletion
from flyte_unified.testing.fake_kube.faults import Asked
from flyte_unified.testing.fake_kube.listing import truth
from flyte_unified.testing.fake_kube.resources import Object

MAX_BODY = 3 * 1024 * 1024
"""Bytes that an API server reads of a request."""

JSON, YAML = "application/json", "application/yaml"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Path:
    """``/apis/<group>/<version>/namespaces/<namespace>/<plural>/<name>/<subresource>``."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watched: bool = False
    """The old form of a watch, with ``watch/`` in front."""

    @classmethod
    def of(cls, path: str) -> Path | None:
        """None for a path that is no resource's."""
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, version, parts = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, parts = parts[1], parts[2], parts[3:]
        else:
            return None
        watched = parts[0] == "watch" and len(parts) > 1
        parts = parts[1:] if watched else parts
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            namespace, parts = parts[1], parts[2:]
        elif parts[0] == "namespaces" and len(parts) > 1:
            return cls(group, version, "namespaces", "", parts[1], "".join(parts[2:3]), watched=watched)
        name, subresource, rest = (*parts[1:4], "", "", "")[:3] if len(parts) < 5 else (parts[1], parts[2], "/".join(parts[3:]))
        return cls(group, version, parts[0], namespace, name, subresource, rest, watched)

    def asked(self, method: str, query: Mapping[str, str]) -> Asked:
        watching = self.watched or truth(query.get("watch", ""))
        reading = "watch" if watching and method == "GET" else "get" if self.name else "list"
        deleting = "delete" if self.name else "deletecollection"
        verbs = {"GET": reading, "HEAD": reading, "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": deleting}
        verb, name = verbs.get(method, method.lower()), self.name or _the_one(query.get("fieldSelector", ""))
        return Asked(verb, self.group, self.plural, self.subresource, self.namespace, name)


def _the_one(fields: str) -> str:
    """The name that a selector demands: to list or watch that one, rights to it suffice, as in a real server."""
    terms = (term.replace("==", "=").partition("=") for term in fields.split(","))
    return next((name for field, _, name in terms if field == "metadata.name"), "")


def media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def read_object(body: bytes, content_type: str) -> Object:
    """Raises ApiError 400, 415."""
    kind = media_type(content_type) or JSON
    if kind not in (JSON, YAML):
        raise errors.unsupported_media([JSON, YAML])
    try:
        content = orjson.loads(body) if kind == JSON else yaml.safe_load(body)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(
            f"the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
        ) from None
    if not isinstance(content, dict):
        raise errors.bad_request("couldn't get version/kind; json parse error: the body is not an object")
    if not isinstance(content.setdefault("metadata", {}), dict):
        raise errors.bad_request("json: cannot unmarshal into Go struct field .metadata of type v1.ObjectMeta")
    return content


def call_options(query: Mapping[str, str], agent: str) -> Call:
    """Raises ApiError 422 for options with no meaning."""
    return Call(
        dry_run=_dry_run(query.get("dryRun")),
        manager=query.get("fieldManager", ""), agent=agent.partition("/")[0],
        validation=query.get("fieldValidation") or "Warn", force=truth(query.get("force", "")),
    )  # fmt: skip


def _dry_run(value: Any) -> bool:
    values = value if isinstance(value, list) else [value] if value else []
    if any(one != "All" for one in values):
        raise errors.invalid("meta.k8s.io", "CreateOptions", "", [errors.unsupported("dryRun", values[0], ["All"])])
    return bool(values)


def deletion(body: bytes, query: Mapping[str, str], call: Call) -> Deletion:
    """DeleteOptions of the body, else of the query. Raises ApiError 400, 422."""
    options: dict[str, Any] = {}
    if body.strip():
        try:
            options = orjson.loads(body)
        except ValueError as error:
            raise errors.bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    else:
        options = {key: query[key] for key in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents") if key in query}
    call.dry_run = call.dry_run or _dry_run(options.get("dryRun"))
    propagation = options.get("propagationPolicy") or ""
    if "orphanDependents" in options and not propagation and options["orphanDependents"] is not None:
        propagation = "Orphan" if str(options["orphanDependents"]).lower() == "true" else "Background"
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        cause = errors.unsupported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan", "nil"])
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    grace = options.get("gracePeriodSeconds")
    wanted = options.get("preconditions") or {}
    return Deletion(
        grace=None if grace is None else int(grace), propagation=propagation,
        uid=wanted.get("uid") or "", version=wanted.get("resourceVersion") or "",
    )  # fmt: skip
