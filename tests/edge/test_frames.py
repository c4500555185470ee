"""Frames, gzip, base64, timeouts: what decoders do with any bytes at all."""

from __future__ import annotations

import base64
import gzip
import itertools
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyte_unified.core.errors import InvalidArgument, ResourceExhausted
from flyte_unified.rpc.envelope import Frame, Unpacker, compress, decompress, pack
from flyte_unified.rpc.grpcweb import TextUnpacker
from flyte_unified.rpc.timeouts import connect_timeout, grpc_timeout
from flyte_unified.rpc.wire import accepts_gzip

FRAMES = st.lists(st.builds(Frame, st.integers(0, 255), st.binary(max_size=300)), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(FRAMES, st.lists(st.integers(0, 2000)))
def test_frames_survive_any_cut(frames: list[Frame], cuts: list[int]) -> None:
    """However the stream is cut into pieces, the same frames come out."""
    data = b"".join(pack(frame.payload, flags=frame.flags) for frame in frames)
    unpacker = Unpacker(limit=300)
    assert [frame for piece in pieces(data, cuts) for frame in unpacker.feed(piece)] == frames
    unpacker.finish()


@given(FRAMES, st.lists(st.integers(0, 2000)))
def test_text_frames_survive_any_cut(frames: list[Frame], cuts: list[int]) -> None:
    """gRPC-Web text: each frame in base64 of its own, padding within the stream, cut anywhere."""
    data = b"".join(base64.b64encode(pack(frame.payload, flags=frame.flags)) for frame in frames)
    unpacker = TextUnpacker(limit=300)
    assert [frame for piece in pieces(data, cuts) for frame in unpacker.feed(piece)] == frames
    unpacker.finish()


@given(st.lists(st.binary(max_size=40)), st.booleans())
@example([b"===="], True)
@example([b"A=B="], True)
def test_any_bytes(parts: list[bytes], text: bool) -> None:
    """Bytes that are no frames raise an error of ours, or wait for more; they are never kept beyond the limit."""
    unpacker = TextUnpacker(limit=64) if text else Unpacker(limit=64)
    try:
        for part in parts:
            for frame in unpacker.feed(part):
                assert len(frame.payload) <= 64
        unpacker.finish()
    except (InvalidArgument, ResourceExhausted):
        pass


def test_frame_limit() -> None:
    """A frame that announces more than the limit is refused before its payload is there."""
    with pytest.raises(ResourceExhausted, match="4294967295 bytes is beyond the limit of 10 bytes"):
        Unpacker(limit=10).feed(b"\0\xff\xff\xff\xff")
    assert Unpacker(limit=10).feed(pack(b"x" * 10)) == [Frame(0, b"x" * 10)]


def test_frame_cut_off() -> None:
    """A stream that ends within a frame, or within a base64 group, is an error."""
    unpacker = Unpacker(limit=10)
    assert unpacker.feed(pack(b"abc")[:-1]) == []
    with pytest.raises(InvalidArgument, match="ends within a message"):
        unpacker.finish()
    text = TextUnpacker(limit=10)
    text.feed(b"AAA")
    with pytest.raises(InvalidArgument, match="cut off"):
        text.finish()


@given(st.binary(max_size=5000), st.integers(0, 6000))
def test_gzip_round_trip(data: bytes, limit: int) -> None:
    """Compressed by us or by others, data comes back whole or, beyond the limit, not at all."""
    for packed in (compress(data), gzip.compress(data), gzip.compress(data[:100]) + gzip.compress(data[100:])):
        if len(data) <= limit:
            assert decompress(packed, limit=limit) == data
        else:
            with pytest.raises(ResourceExhausted):
                decompress(packed, limit=limit)


@given(st.binary(max_size=200))
def test_any_gzip(data: bytes) -> None:
    """Bytes that are no gzip, and a gzip that is cut or followed by rubbish, are the caller's fault."""
    packed = compress(data)
    for wrong in (data, packed[:-1], packed + b"rubbish"):
        with pytest.raises(InvalidArgument):
            decompress(wrong, limit=1000)


def test_gzip_bomb() -> None:
    """A small body that would unpack to a gigabyte is stopped at the limit."""
    with pytest.raises(ResourceExhausted):
        decompress(gzip.compress(bytes(100_000_000), 1), limit=1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 0.000005), ("6n", 6e-9), ("99999999H", 359999996400)],
)
def test_grpc_timeout(text: str, seconds: float) -> None:
    """Up to eight digits and a unit."""
    assert grpc_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "-1S", "1.5S", "123456789S", "1s", " 1S", "1S ", "1S\n", "١S"])
def test_grpc_timeout_wrong(text: str) -> None:
    """Anything else names the header."""
    with pytest.raises(InvalidArgument, match="grpc-timeout"):
        grpc_timeout(text)


@given(st.text(alphabet=string.printable, max_size=12))
def test_connect_timeout(text: str) -> None:
    """One to ten digits of milliseconds; anything else names the header."""
    if 1 <= len(text) <= 10 and set(text) <= set(string.digits):
        assert connect_timeout(text) == int(text) / 1000
    else:
        with pytest.raises(InvalidArgument, match="connect-timeout-ms"):
            connect_timeout(text)


@pytest.mark.parametrize(
    ("accept", "gzip_wanted"),
    [("", False), ("gzip", True), ("br, gzip", True), ("gzip;q=0.5,identity", True), ("gzip;q=0", False), ("xgzip", False)],
)
def test_accept(accept: str, gzip_wanted: bool) -> None:
    """gzip is sent to who names it without q=0."""
    assert accepts_gzip(accept) is gzip_wanted
