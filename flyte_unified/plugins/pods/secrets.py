"""Secrets as references. Nothing here knows a value, so none can stand in a pod's spec.

As a variable a secret is a ``secretKeyRef``, as a file an entry of one projected volume. Their names are ``plugins.secrets``'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from flyteidl2.core import security_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey
from flyte_unified.plugins.pods.config import PodConfig, SecretRef, is_object_name
from flyte_unified.plugins.secrets import DIRECTORY, LOOKUP, is_file, names, path, paths, wanted

__all__ = ["DIRECTORY", "variables", "volume", "wanted"]

VOLUME = "flyte-secrets"

_ENTRY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def variables(secrets: Iterable[security_pb2.Secret], key: ActionKey, config: PodConfig) -> list[dict[str, Any]]:
    """Entries of a container's ``env``. Raises InvalidArgument naming the field."""
    entries: list[dict[str, Any]] = []
    for secret in secrets:
        if is_file(secret):
            if secret.env_var:
                entries.append({"name": secret.env_var, "value": path(secret)})
            continue
        reference = _reference(secret, key, config)
        source = {"secretKeyRef": {"name": reference.name, "key": reference.key}}
        entries.extend({"name": name, "valueFrom": source} for name in names(secret))
    looked_up = [{"name": name, "value": value} for name, value in LOOKUP.items()]
    return [*looked_up, *entries] if entries or any(map(is_file, secrets)) else []


def volume(secrets: Iterable[security_pb2.Secret], key: ActionKey, config: PodConfig) -> dict[str, Any] | None:
    """The volume of those that are to be files; None if there are none. Raises InvalidArgument."""
    sources, taken = [], set[str]()
    for secret in filter(is_file, secrets):
        reference = _reference(secret, key, config)
        ours = [each for each in paths(secret) if each not in taken]  # groups may share a key; the first has it
        taken.update(ours)
        if ours:  # an empty list of items would mean all of them
            items = [{"key": reference.key, "path": each} for each in ours]
            sources.append({"secret": {"name": reference.name, "items": items}})
    return {"name": VOLUME, "projected": {"sources": sources, "defaultMode": 0o444}} if sources else None


def _reference(secret: security_pb2.Secret, key: ActionKey, config: PodConfig) -> SecretRef:
    reference = config.secrets(key.project, key.domain, secret.group, secret.key)
    if not (is_object_name(reference.name) and _ENTRY.fullmatch(reference.key)):
        raise InvalidArgument(
            f"security_context.secrets: {secret.group + '/' if secret.group else ''}{secret.key}: "
            f"there can be no Secret {reference.name!r} with an entry {reference.key!r}; letters, digits, - and . are allowed"
        )
    return reference
