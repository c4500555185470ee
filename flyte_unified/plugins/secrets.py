"""How a task's secrets are called where it looks for them, on a laptop as in a cluster. Nothing here knows a value.

As a variable a secret has the name that is asked for, else those where Flyte's SDKs look; as a file it lies in one directory.
A FILE with a variable's name has the path of its file in that variable (flyteidl2/core/security.proto).
"""

from __future__ import annotations

import posixpath

from flyteidl2.core import security_pb2

from flyte_unified.core.errors import InvalidArgument

DIRECTORY = "/etc/flyte/secrets"

_PREFIX, _UNION = "_FSEC_", "_UNION_"
LOOKUP = {"FLYTE_SECRETS_ENV_PREFIX": _PREFIX, "FLYTE_SECRETS_DEFAULT_DIR": DIRECTORY}
"""Where Flyte 1's SDK is told to look."""


def wanted(*contexts: security_pb2.SecurityContext) -> list[security_pb2.Secret]:
    """The secrets of task and run, each once. Raises InvalidArgument for one without a key."""
    found: list[security_pb2.Secret] = []
    for secret in (secret for context in contexts for secret in context.secrets):
        if not secret.key:
            raise InvalidArgument(f"security_context.secrets: a secret of group {secret.group!r} has no key")
        if secret not in found:
            found.append(secret)
    return found


def is_file(secret: security_pb2.Secret) -> bool:
    return bool(secret.mount_requirement == security_pb2.Secret.FILE)


def names(secret: security_pb2.Secret) -> list[str]:
    """The variable that is asked for; else those where Flyte 2's and Flyte 1's SDK look."""
    if secret.env_var:
        return [secret.env_var]
    name = secret.key.replace("-", "_").upper()
    grouped = f"{secret.group}_{secret.key}" if secret.group else secret.key
    return [f"{_UNION}{name}", f"{_PREFIX}{grouped.upper()}"]


def paths(secret: security_pb2.Secret) -> list[str]:
    """Below the directory: Flyte 2's SDK reads a file by its key, Flyte 1's one below its group. Raises InvalidArgument."""
    found = [secret.key] + ([posixpath.join(secret.group, secret.key)] if secret.group else [])
    for path in found:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"security_context.secrets: {path!r} is no path for a file")
    return found


def path(secret: security_pb2.Secret) -> str:
    """Of the file. Raises InvalidArgument."""
    return posixpath.join(DIRECTORY, paths(secret)[0])
