"""What clients of gRPC services share: TLS, and errors that are ours; and a channel for a few calls."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, NotFound, RpcError, Unavailable, Unimplemented
from flyte_unified.net.reasons import reason


def told(code: Code, message: str) -> FlyteUnifiedError:
    """What the other side says, as an error of ours."""
    match code:
        case Code.NOT_FOUND:
            return NotFound(message)
        case Code.UNIMPLEMENTED:
            return Unimplemented(message)
        case Code.UNAVAILABLE:
            return Unavailable(message)
    return RpcError(code, message)


def tls() -> ssl.SSLContext:
    """The machine's authorities, or those of ``$SSL_CERT_FILE``."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def channel(url: str) -> AsyncGenerator[Channel]:
    """Connected to ``http://host:port`` or ``https://host``. Raises InvalidArgument, Unavailable, and what the server says."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"{url!r}: a URL is expected, http://host:port or https://host")
    opened = Channel(parts.hostname, parts.port or (443 if secure else 80), ssl=tls() if secure else None)
    try:
        await opened.__connect__()
        yield opened
    except GRPCError as error:
        raise told(Code(error.status.value), error.message or error.status.name) from error
    except (OSError, TimeoutError, ProtocolError, StreamTerminatedError) as error:
        raise Unavailable(f"{url} does not answer: {reason(error) if isinstance(error, OSError) else error}") from error
    finally:
        opened.close()
