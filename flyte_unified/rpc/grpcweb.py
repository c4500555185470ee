"""gRPC and gRPC-Web: the same frames and the same status, which gRPC ends with HTTP trailers and gRPC-Web with a frame.

gRPC's framing is ours and not grpclib's server, so that one path has one deadline, one identity and one judge of
errors for every protocol, and so that compressed messages are read, which grpclib refuses.
Sources: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and PROTOCOL-WEB.md.
"""

from __future__ import annotations

import base64
import binascii

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.rpc.envelope import ENCODINGS, GZIP, Frame, Unpacker, pack
from flyte_unified.rpc.errors import grpc_status
from flyte_unified.rpc.timeouts import grpc_timeout
from flyte_unified.rpc.wire import Call, FramedWire

TRAILERS = 0x80


class Grpc(FramedWire):
    """Over HTTP/2 only: the status is in the trailers."""

    protocol = "grpc"
    request_encoding = "grpc-encoding"
    accept_encoding = "grpc-accept-encoding"
    end_flag: int | None = None
    content_type = "application/grpc"

    def timeout(self, call: Call) -> float | None:
        value = call.head.get("grpc-timeout")
        return None if value is None else grpc_timeout(value)

    def headers(self, call: Call, *, gzip: bool) -> Headers:
        head: Headers = (("content-type", f"{self.content_type}+{call.codec}"), ("grpc-accept-encoding", ENCODINGS))
        return (*head, ("grpc-encoding", GZIP)) if gzip else head

    def ending(self, error: FlyteUnifiedError | None, trailers: Headers) -> tuple[bytes, Headers]:
        return b"", (*grpc_status(error), *trailers)


class GrpcWeb(Grpc):
    """For browsers: the trailers are the body's last frame."""

    protocol = "grpc-web"
    end_flag = TRAILERS
    content_type = "application/grpc-web"

    def ending(self, error: FlyteUnifiedError | None, trailers: Headers) -> tuple[bytes, Headers]:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*grpc_status(error), *trailers))
        return pack(lines.encode(), flags=TRAILERS), ()


class GrpcWebText(GrpcWeb):
    """gRPC-Web in base64, for browsers that cannot stream bytes."""

    content_type = "application/grpc-web-text"

    def unpacker(self, call: Call) -> Unpacker:
        return TextUnpacker(limit=call.limits.message)

    def outbound(self, data: bytes) -> bytes:
        return base64.b64encode(data)


class TextUnpacker(Unpacker):
    """Frames in base64; padding may stand within, where the client began a new piece."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._text = b""

    def feed(self, data: bytes) -> list[Frame]:
        text = self._text + data
        whole = len(text) // 4 * 4
        self._text = text[whole:]
        return super().feed(_decoded(text[:whole]))

    def finish(self) -> None:
        if self._text:
            raise InvalidArgument("the request's base64 is cut off")
        super().finish()


def _decoded(text: bytes) -> bytes:
    try:
        if b"=" not in text:
            return binascii.a2b_base64(text, strict_mode=True)
        return b"".join(binascii.a2b_base64(text[i : i + 4], strict_mode=True) for i in range(0, len(text), 4))
    except binascii.Error as error:
        raise InvalidArgument(f"the request is no base64: {error}") from error
