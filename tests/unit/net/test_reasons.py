"""Why somebody could not be reached, in words for people."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from flyte_unified.core.errors import Unavailable
from flyte_unified.net import grpc
from flyte_unified.net.reasons import reason


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 80)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "nobody knows its address"),
        (ssl.SSLError(1, "[SSL] of https://user:secret@host"), "tls failed"),
        (ValueError("https://user:secret@host"), "ValueError"),
    ],
)
def test_no_address_is_repeated(error: Exception, told: str) -> None:
    """Nor are the numbers of TLS or of names taken for the system's."""
    assert reason(error) == told


async def test_tls_where_there_is_none() -> None:
    """What answers, and not in TLS, is told as that."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match=r"does not answer: .*(wrong version|record layer|packet)"):
            async with grpc.channel(f"https://127.0.0.1:{port}"):
                pass
