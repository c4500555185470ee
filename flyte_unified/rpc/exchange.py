"""One HTTP request and its response, whatever the HTTP version underneath.

Everything above the transports is written against this class, so a test can be its own transport.
"""

from __future__ import annotations

import abc

from flyte_unified.core.context import Headers


class Disconnected(Exception):
    """The client is gone, or reads so slowly that it was given up."""


class Exchange(abc.ABC):
    """A request to read once and a response to write once: ``respond``, or ``start``, ``write``..., ``end``."""

    __slots__ = (
        "_mark",
        "base_url",
        "complete",
        "headers",
        "host",
        "http_version",
        "method",
        "path",
        "patient",
        "query",
        "reply_headers",
        "started",
        "token",
    )

    def __init__(self, *, method: str, target: str, headers: Headers, host: str, http_version: str) -> None:
        self.method = method
        self.path, self._mark, self.query = target.partition("?")
        """Both still percent-encoded."""
        self.headers = headers
        """Names in lower case; values byte by byte (Latin-1), as are those of answers."""
        self.host = host
        """Host and port that the caller used; empty if it named none."""
        self.http_version = http_version
        self.base_url = f"http://{host}"
        self.token: str | None = None
        """The run token that stood in the path. Here, and in no frame's locals: tracebacks are logged."""
        self.reply_headers: Headers = ()
        """Sent with any response: what the edge adds for the browser and for the caller's logs."""
        self.patient = False
        """Whether the client may take as long as it likes between two pieces of the body: a stream of messages."""
        self.complete = False
        """Whether the response's last bytes are on their way: after that, nothing can be added."""
        self.started = False
        """Whether the response has begun: after that, no other status can be sent."""

    @property
    def target(self) -> str:
        """Path and query as they were sent, also where the query is empty."""
        return f"{self.path}{self._mark}{self.query}"

    @property
    def peer(self) -> str:
        """The address at the connection's other end; empty where it has none."""
        return ""

    @property
    def empty(self) -> bool:
        """Whether it is known that no body comes, though no header says so."""
        return False

    @abc.abstractmethod
    async def read(self, limit: int) -> bytes:
        """The whole body. Raises ResourceExhausted beyond ``limit`` bytes, Disconnected."""

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """The next piece of the body; empty at its end. Raises Disconnected."""

    @abc.abstractmethod
    async def respond(self, status: int, headers: Headers, body: bytes = b"", *, trailers: Headers = ()) -> None:
        """A whole response. Raises Disconnected, as do the other writers."""

    @abc.abstractmethod
    async def start(self, status: int, headers: Headers) -> None:
        """Begin a streamed response."""

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Send ``data`` now; waits while the client is behind."""

    @abc.abstractmethod
    async def end(self, *, trailers: Headers = ()) -> None:
        """End a streamed response."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End the exchange so that the client cannot take what it got for the whole."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")
