"""Our errors on the wire, and everything else that may go wrong as one of ours.

Sources: https://connectrpc.com/docs/protocol (error JSON, HTTP status), gRPC over HTTP/2 (status in trailers),
google/rpc/status.proto (details).
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import orjson
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import Code, FlyteUnifiedError

HTTP_STATUS: dict[Code, int] = {
    Code.CANCELED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

# Clients bound a response's trailers, commonly at 8 KiB, and drop the whole status beyond.
_LONGEST_MESSAGE = 1500
_LARGEST_STATUS = 4096
# gRPC's percent-encoding leaves printable ASCII alone but for '%'.
_PRINTABLE = "".join(chr(c) for c in range(0x20, 0x7F) if c != ord("%"))


def connect_error(error: FlyteUnifiedError) -> dict[str, Any]:
    """The JSON object of a Connect error."""
    value: dict[str, Any] = {"code": error.code.wire}
    if error.message:
        value["message"] = error.message
    if error.details:
        value["details"] = [
            {"type": packed.type_url.rpartition("/")[2], "value": base64_text(packed.value)}
            for packed in map(_packed, error.details)
        ]
    return value


def connect_error_json(error: FlyteUnifiedError) -> bytes:
    return orjson.dumps(connect_error(error))


def grpc_status(error: FlyteUnifiedError | None) -> Headers:
    """The trailers that end a gRPC call."""
    if error is None:
        return (("grpc-status", "0"),)
    message = error.message
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + " [...]"
    code = str(int(error.code))
    lines = (("grpc-status", code), ("grpc-message", quote(message, safe=_PRINTABLE, errors="replace")))
    if not error.details:
        return lines
    status = Status(code=int(error.code), message=message, details=[_packed(d) for d in error.details])
    if status.ByteSize() > _LARGEST_STATUS:
        return lines
    return (*lines, ("grpc-status-details-bin", base64_text(status.SerializeToString())))


def base64_text(data: bytes) -> str:
    """Standard base64 without padding, as both protocols want it."""
    return base64.b64encode(data).decode().rstrip("=")


def _packed(detail: Message) -> AnyMessage:
    if isinstance(detail, AnyMessage):
        return detail
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
