"""How long a caller is willing to wait, as the protocols write it.

Sources: https://connectrpc.com/docs/protocol (Connect-Timeout-Ms), gRPC over HTTP/2 (grpc-timeout).
"""

from __future__ import annotations

import re

from flyte_unified.core.errors import InvalidArgument

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONNECT = re.compile(r"[0-9]{1,10}")
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")


def connect_timeout(value: str) -> float:
    """``connect-timeout-ms`` in seconds. Raises InvalidArgument."""
    if not _CONNECT.fullmatch(value):
        raise InvalidArgument(f"connect-timeout-ms: {value[:32]!r} is not 1 to 10 digits")
    return int(value) / 1000


def grpc_timeout(value: str) -> float:
    """``grpc-timeout`` in seconds. Raises InvalidArgument."""
    match = _GRPC.fullmatch(value)
    if match is None:
        raise InvalidArgument(f"grpc-timeout: {value[:32]!r} is not 1 to 8 digits and one of H, M, S, m, u, n")
    return int(match[1]) * _UNITS[match[2]]
