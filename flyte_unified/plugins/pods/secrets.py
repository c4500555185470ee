"""Secrets as references. Nothing here knows a value, so none can stand in a pod's spec.

As a variable a secret is a ``secretKeyRef``, as a file an entry of one projected volume at the path where Flyte's SDKs look.
A FILE with a variable's name has the path of its file in that variable (flyteidl2/core/security.proto).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

from flyteidl2.core import security_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.plugins.pods.config import PodConfig, SecretRef, is_object_name

DIRECTORY = "/etc/flyte/secrets"
VOLUME = "flyte-secrets"

_ENTRY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_PREFIX, _UNION = "_FSEC_", "_UNION_"
_LOOKUP = ({"name": "FLYTE_SECRETS_ENV_PREFIX", "value": _PREFIX}, {"name": "FLYTE_SECRETS_DEFAULT_DIR", "value": DIRECTORY})
"""Where Flyte 1's SDK is told to look."""


def wanted(*contexts: security_pb2.SecurityContext) -> list[security_pb2.Secret]:
    """The secrets of task and run, each once."""
    found: list[security_pb2.Secret] = []
    for secret in (secret for context in contexts for secret in context.secrets):
        if secret not in found:
            found.append(secret)
    return found


def variables(secrets: Iterable[security_pb2.Secret], key: ActionKey, config: PodConfig) -> list[dict[str, Any]]:
    """Entries of a container's ``env``. Raises InvalidArgument naming the field."""
    entries: list[dict[str, Any]] = []
    for secret in secrets:
        if secret.mount_requirement == security_pb2.Secret.FILE:
            if secret.env_var:
                entries.append({"name": secret.env_var, "value": posixpath.join(DIRECTORY, _paths(secret)[0])})
            continue
        reference = _reference(secret, key, config)
        source = {"secretKeyRef": {"name": reference.name, "key": reference.key}}
        entries.extend({"name": name, "valueFrom": source} for name in _names(secret))
    return [*_LOOKUP, *entries] if entries or any(s.mount_requirement == security_pb2.Secret.FILE for s in secrets) else []


def volume(secrets: Iterable[security_pb2.Secret], key: ActionKey, config: PodConfig) -> dict[str, Any] | None:
    """The volume of those that are to be files; None if there are none. Raises InvalidArgument."""
    sources, taken = [], set[str]()
    for secret in secrets:
        if secret.mount_requirement == security_pb2.Secret.FILE:
            reference = _reference(secret, key, config)
            paths = [path for path in _paths(secret) if path not in taken]  # groups may share a key; the first has it
            taken.update(paths)
            items = [{"key": reference.key, "path": path} for path in paths]
            sources.append({"secret": {"name": reference.name, "items": items}})
    return {"name": VOLUME, "projected": {"sources": sources, "defaultMode": 0o444}} if sources else None


def _reference(secret: security_pb2.Secret, key: ActionKey, config: PodConfig) -> SecretRef:
    if not secret.key:
        raise InvalidArgument(f"security_context.secrets: a secret of group {secret.group!r} has no key")
    reference = config.secrets(key.project, key.domain, secret.group, secret.key)
    if not (is_object_name(reference.name) and _ENTRY.fullmatch(reference.key)):
        raise InvalidArgument(
            f"security_context.secrets: {secret.group + '/' if secret.group else ''}{secret.key}: "
            f"there can be no Secret {reference.name!r} with an entry {reference.key!r}; letters, digits, - and . are allowed"
        )
    return reference


def _names(secret: security_pb2.Secret) -> list[str]:
    """The variable that is asked for; else those where Flyte 2's and Flyte 1's SDK look."""
    if secret.env_var:
        return [secret.env_var]
    name = secret.key.replace("-", "_").upper()
    grouped = f"{secret.group}_{secret.key}" if secret.group else secret.key
    return [f"{_UNION}{name}", f"{_PREFIX}{grouped.upper()}"]


def _paths(secret: security_pb2.Secret) -> list[str]:
    """Below the directory: Flyte 2's SDK reads a file by its key, Flyte 1's one below its group."""
    paths = [secret.key] + ([posixpath.join(secret.group, secret.key)] if secret.group else [])
    for path in paths:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"security_context.secrets: {path!r} is no path for a file")
    return paths
