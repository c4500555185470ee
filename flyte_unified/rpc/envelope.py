"""Messages in a byte stream: five bytes (flags, big-endian length), then the message; and gzip.

The same framing serves Connect's streams, gRPC and gRPC-Web; only the meaning of the flags above bit 0 differs.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from flyte_unified.core.errors import InvalidArgument, ResourceExhausted

COMPRESSED = 0x01
"""The flag of a compressed message, in all three protocols."""

GZIP = "gzip"
IDENTITY = "identity"
ENCODINGS = "gzip,identity"
"""What we read and write, as in an accept header."""

_PREFIX = 5
_GZIP_WINDOW = 31


class Frame(NamedTuple):
    flags: int
    payload: bytes


def pack(payload: bytes, *, flags: int = 0) -> bytes:
    """One frame."""
    return flags.to_bytes(1, "big") + len(payload).to_bytes(4, "big") + payload


class Unpacker:
    """Bytes in, frames out. A message longer than ``limit`` bytes is refused before it is buffered."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes. Raises ResourceExhausted."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while True:
            have = len(buffer) - start
            if have < _PREFIX:
                break
            length = int.from_bytes(buffer[start + 1 : start + _PREFIX], "big")
            if length > self._limit:
                raise too_large(length, self._limit)
            end = start + _PREFIX + length
            if end > len(buffer):
                break
            frames.append(Frame(buffer[start], bytes(memoryview(buffer)[start + _PREFIX : end])))
            start = end
        if start:
            del buffer[:start]
        return frames

    def finish(self) -> None:
        """The stream has ended. Raises InvalidArgument when it ended within a frame."""
        if self._buffer:
            raise InvalidArgument(f"the request ends within a message, after {len(self._buffer)} bytes of its frame")


def compress(data: bytes) -> bytes:
    """``data`` as gzip, at the fastest level: the reader is near, or there is an ingress to do better."""
    return zlib.compress(data, 1, _GZIP_WINDOW)


def decompress(data: bytes, *, limit: int) -> bytes:
    """gzip undone. Raises ResourceExhausted beyond ``limit`` bytes, InvalidArgument when ``data`` is no whole gzip."""
    parts: list[bytes] = []
    room = limit + 1
    while True:
        stream = zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = stream.decompress(data, room)
        except zlib.error as error:
            raise InvalidArgument(f"the request is no gzip: {error}") from error
        room -= len(part)
        if room <= 0:
            raise too_large(None, limit)
        parts.append(part)
        if not stream.eof:
            raise InvalidArgument("the request's gzip is cut off")
        data = stream.unused_data
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(size: int | None, limit: int) -> ResourceExhausted:
    what = "a message" if size is None else f"a message of {size} bytes"
    return ResourceExhausted(f"{what} is beyond the limit of {limit} bytes (server.max_message_bytes)")
