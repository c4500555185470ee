"""Names of objects in a cluster: readable where they can be, unique always (RFC 1123, as Kubernetes checks it)."""

from __future__ import annotations

import hashlib
import re

from flyte_unified.core.ids import ActionKey

_FOREIGN = re.compile(r"[^a-z0-9-]+")
_MARK = 6


def object_name(key: ActionKey, attempt: int, *, limit: int = 63) -> str:
    """The name of an attempt's pod, or of its operator's resource: run, action, number (from 0), and a mark of the whole key.

    Run and action recur in other projects and may hold what a DNS label can't; the mark tells them apart. Operators that
    append to their resource's name want a lower ``limit``.
    """
    mark = hashlib.sha256("/".join(key).encode()).hexdigest()[:_MARK]
    tail = f"-{attempt - 1}-{mark}"
    return f"{_plain(f'{key.run}-{key.name}')[: limit - len(tail)].rstrip('-')}{tail}"


def app_name(project: str, domain: str, name: str, *, limit: int = 46) -> str:
    """The name of an app's Deployment and Service. Their pods' names, which are longer by 17, are labels of DNS, too."""
    mark = hashlib.sha256("/".join((project, domain, name)).encode()).hexdigest()[:_MARK]
    return f"{_plain(f'{name}-{project}-{domain}')[: limit - len(mark) - 1].rstrip('-')}-{mark}"


def order_name(key: ActionKey) -> str:
    """The name of an action's TaskAction: project, domain, run and action, joined by dots."""
    parts = [_plain(part) for part in key]
    name = ".".join(parts)
    if tuple(parts) == tuple(key):
        return name
    return f"{name}.{hashlib.sha256('/'.join(key).encode()).hexdigest()[:_MARK]}"


def _plain(text: str) -> str:
    plain = _FOREIGN.sub("-", text.lower()).strip("-")
    return plain if plain and plain[0].isalpha() else f"x{plain}"
