"""Why somebody could not be reached, without the address: who tells it has named that, and it may hold a secret."""

from __future__ import annotations

import os
import socket
import ssl


def reason(error: Exception) -> str:
    """In the system's words. aiohttp's errors hold the one that they are about."""
    match getattr(error, "os_error", None) or getattr(error, "certificate_error", error):
        case socket.gaierror():
            return "nobody knows its address"
        case ssl.SSLError() as refused:  # which has numbers of its own
            return str(getattr(refused, "reason", None) or "TLS failed").replace("_", " ").lower()
        case OSError(errno=int(number)):
            return os.strerror(number)
    return type(error).__name__
