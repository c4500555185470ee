"""Defaults, first status and checks of the built-in kinds other than pods: as much as clients can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flyte_unified.testing.fake_kube.errors import Cause
from flyte_unified.testing.fake_kube.resources import Object

KEEP_STATUS = frozenset({("", "nodes")})
"""Kinds whose creator writes the status too."""


def _namespace(content: Object) -> None:
    content.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    content["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = content["metadata"].get("name", "")


DEFAULTS: Mapping[tuple[str, str], Callable[[Object], None]] = {("", "namespaces"): _namespace}
INITIAL_STATUS: Mapping[tuple[str, str], Callable[[Object], Object]] = {
    ("", "namespaces"): lambda _: {"phase": "Active"},
    ("", "pods"): lambda _: {"phase": "Pending"},
}
CHECKS: Mapping[tuple[str, str], Callable[[Object, Object | None], list[Cause]]] = {}
