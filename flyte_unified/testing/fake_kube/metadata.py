"""The rules of ``metadata``: names, what the server fills in, and what nobody may change.

Source: k8s.io/apimachinery/pkg/api/validation and k8s.io/apiserver/pkg/registry/rest; the texts of name errors are theirs.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flyte_unified.testing.fake_kube.errors import Cause, forbidden_field, invalid_value, required
from flyte_unified.testing.fake_kube.resources import Object, Resource

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS_LABEL, _DNS_SUBDOMAIN = re.compile(_LABEL), re.compile(_SUBDOMAIN)
_QUALIFIED_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_MAX_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = {"kubernetes", "orphan", "foregroundDeletion"}

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    f"with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    f"alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def timestamp(at: datetime | None = None) -> str:
    """RFC 3339 in whole seconds, as ``metav1.Time``. Now, unless another moment is given."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def dns_label(value: str) -> str:
    """Why ``value`` is no DNS-1123 label; empty if it is one."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    return "" if _DNS_LABEL.fullmatch(value) else _LABEL_TEXT


def dns_subdomain(value: str) -> str:
    """Why ``value`` is no DNS-1123 subdomain; empty if it is one."""
    if len(value) > 253:
        return "must be no more than 253 characters"
    return "" if _DNS_SUBDOMAIN.fullmatch(value) else _SUBDOMAIN_TEXT


def _segment(value: str) -> str:
    if value in (".", ".."):
        return f"may not be '{value}'"
    return next((f"may not contain '{char}'" for char in "/%" if char in value), "")


def qualified_name(value: str) -> str:
    """Why ``value`` is no label key; empty if it is one."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or (why := dns_subdomain(prefix))):
        return f"prefix part {why if prefix else 'must be non-empty'}"
    if not name or len(name) > 63:
        return "name part must be no more than 63 characters" if name else "name part must be non-empty"
    return "" if _QUALIFIED_NAME.fullmatch(name) else _QUALIFIED_TEXT


def label_value(value: str) -> str:
    """Why ``value`` is no label value; empty if it is one."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    return "" if not value or _QUALIFIED_NAME.fullmatch(value) else _VALUE_TEXT


def _name_rule(resource: Resource, name: str) -> str:
    if resource.group == "rbac.authorization.k8s.io":
        return _segment(name)
    if not resource.group and resource.plural in ("namespaces", "services"):
        return dns_label(name)
    return dns_subdomain(name)


def generated_name(base: str) -> str:
    """``base`` cut to 58 characters, with five random ones behind it."""
    return base[:58] + "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def begin(content: Object) -> None:
    """What the server writes into the metadata of a new object."""
    metadata = content["metadata"]
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(key, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp()
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated_name(metadata["generateName"])


def carry(content: Object, old: Mapping[str, Any]) -> None:
    """What an update leaves out of its metadata and keeps nevertheless."""
    metadata, before = content["metadata"], old["metadata"]
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace"):
        if key in before and (key in ("generation", "creationTimestamp") or not metadata.get(key)):
            metadata[key] = before[key]
    metadata.pop("selfLink", None)
    if "generation" not in before:
        metadata.pop("generation", None)


def check(resource: Resource, content: Object) -> list[Cause]:
    """What is wrong with the metadata of one object."""
    metadata = content["metadata"]
    name = metadata.get("name", "")
    causes: list[Cause] = []
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif why := _name_rule(resource, name):
        causes.append(invalid_value("metadata.name", name, why))
    for key, value in (metadata.get("labels") or {}).items():
        if why := qualified_name(key):
            causes.append(invalid_value("metadata.labels", key, why))
        if why := label_value(value):
            causes.append(invalid_value("metadata.labels", value, why))
    annotations = metadata.get("annotations") or {}
    causes += [invalid_value("metadata.annotations", key, why) for key in annotations if (why := qualified_name(key.lower()))]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        causes.append(
            Cause("FieldValueTooLong", f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes", "metadata.annotations")
        )
    return causes + _owners(metadata) + _finalizers(resource, metadata)


def _owners(metadata: Mapping[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    owners = metadata.get("ownerReferences") or []
    for owner in owners:
        path = "metadata.ownerReferences"
        texts = {
            "apiVersion": "version must not be empty",
            "kind": "must not be empty",
            "name": "must not be empty",
            "uid": "must not be empty",
        }
        causes += [
            invalid_value(f"{path}.{key}", owner.get(key, ""), text) for key, text in texts.items() if not owner.get(key)
        ]
    if sum(1 for owner in owners if owner.get("controller")) > 1:
        text = "Only one reference can have Controller set to true"
        causes.append(invalid_value("metadata.ownerReferences", "owners", text))
    return causes


def _finalizers(resource: Resource, metadata: Mapping[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    finalizers = metadata.get("finalizers") or []
    for index, name in enumerate(finalizers):
        if why := qualified_name(name):
            causes.append(invalid_value("metadata.finalizers", name, why))
        elif _core(resource) and "/" not in name and name not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid_value(f"metadata.finalizers[{index}]", name, text))
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        causes.append(invalid_value("metadata.finalizers", "orphan", text))
    return causes


def _core(resource: Resource) -> bool:
    return not resource.custom and resource.group != "apiextensions.k8s.io"


def warnings(content: Object, old: Mapping[str, Any] | None) -> list[str]:
    """What a client should not do, and may."""
    before = (old or {"metadata": {}})["metadata"].get("finalizers") or ()
    return [
        f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name to avoid accidental conflicts with other '
        "finalizer writers"
        for name in content["metadata"].get("finalizers") or ()
        if "/" not in name and name not in before and name not in _STANDARD_FINALIZERS
    ]


def check_update(content: Object, old: Mapping[str, Any]) -> list[Cause]:
    """What an update may not change in the metadata."""
    metadata, before = content["metadata"], old["metadata"]
    causes: list[Cause] = []
    if before.get("deletionTimestamp"):
        added = [name for name in metadata.get("finalizers") or () if name not in (before.get("finalizers") or ())]
        if added:
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {_go_strings(added)}"
            causes.append(forbidden_field("metadata.finalizers", text))
    frozen = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
    return causes + [
        invalid_value(f"metadata.{key}", metadata.get(key), "field is immutable")
        for key in frozen
        if metadata.get(key) != before.get(key)
    ]


def _go_strings(values: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"
