"""An exchange without sockets."""

from __future__ import annotations

from flyte_unified.core.context import Headers
from flyte_unified.core.errors import ResourceExhausted
from flyte_unified.rpc.exchange import Exchange


class MemoryExchange(Exchange):
    """Gives the request's ``pieces`` one by one and keeps what is answered."""

    def __init__(
        self, target: str, *pieces: bytes, headers: Headers = (), method: str = "POST", http_version: str = "2"
    ) -> None:
        super().__init__(method=method, target=target, headers=headers, host="localhost:8090", http_version=http_version)
        self._pieces = [piece for piece in pieces if piece]
        self.status = 0
        self.answered: Headers = ()
        self.body = b""
        self.trailers: Headers = ()
        self.ended = False
        self.aborted = False

    async def read(self, limit: int) -> bytes:
        body = b"".join(self._pieces)
        if len(body) > limit:
            raise ResourceExhausted
        return body

    async def receive(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def respond(self, status: int, headers: Headers, body: bytes = b"", *, trailers: Headers = ()) -> None:
        await self.start(status, headers)
        await self.write(body)
        await self.end(trailers=trailers)

    async def start(self, status: int, headers: Headers) -> None:
        assert not self.started
        self.started = True
        self.status, self.answered = status, (*headers, *self.reply_headers)

    async def write(self, data: bytes) -> None:
        assert self.started
        assert not self.ended
        self.body += data

    async def end(self, *, trailers: Headers = ()) -> None:
        assert not self.ended
        self.ended = True
        self.trailers = trailers

    def abort(self) -> None:
        self.aborted = True
