"""Kubernetes resource quantities, as tasks ask for them (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity)."""

from __future__ import annotations

import re

from flyte_unified.core.errors import InvalidArgument

_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    name + "i": 1024.0**power for power, name in enumerate(("K", "M", "G", "T", "P", "E"), start=1)
}
_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:([eE][+-]?[0-9]+)|([A-Za-z]{0,2}))")


def quantity(text: str, *, field: str) -> float:
    """``500m`` is 0.5, ``1Gi`` is 1073741824. Raises InvalidArgument naming ``field``."""
    match = _QUANTITY.fullmatch(text.strip())
    suffix = match[3] or "" if match else ""
    if match is None or suffix not in _SUFFIXES:
        raise InvalidArgument(f"{field}: {text!r} is no quantity; write 500m, 2 or 1Gi")
    return float(match[1] + (match[2] or "")) * _SUFFIXES[suffix]
