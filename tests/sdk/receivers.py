"""Where notifications arrive: a web server and a mail server of the test's own, on free ports."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

_PATIENCE = 60.0
"""Seconds in which a message must come."""


@dataclass
class Received:
    """One request, or one mail with ``to`` of its envelope."""

    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    mail: EmailMessage | None = None
    to: list[str] = field(default_factory=list)


class Inbox:
    """What has come, in its order. ``refuse`` is how many requests are answered with 503 before one is taken."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._came = threading.Condition()
        self.refuse = 0
        self.web = ""
        self.smtp_port = 0

    def put(self, received: Received) -> bool:
        """Whether it was taken."""
        with self._came:
            self.refuse -= not received.to
            self._received.append(received)
            self._came.notify_all()
            return self.refuse < 0

    def get(self, count: int = 1, **wanted: str) -> list[Received]:
        """Those with such a ``path``, or ``to``; waits until there are so many."""

        def found() -> list[Received]:
            return [each for each in self._received if wanted.get("path") == each.path or wanted.get("to") in each.to]

        with self._came:
            assert self._came.wait_for(lambda: len(found()) >= count, _PATIENCE), (
                f"{wanted} did not come; there are {self._received}"
            )
            return found()

    def none(self, **wanted: str) -> bool:
        with self._came:
            return not any(wanted.get("path") == each.path or wanted.get("to") in each.to for each in self._received)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.put(Received(mail=mail, to=list(envelope.rcpt_tos)))  # type: ignore[arg-type]  # the policy makes EmailMessages
        return "250 OK"


@contextmanager
def receiving() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers["content-length"]))
            told = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body))
            self.send_response(200 if inbox.put(told) else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    loop = asyncio.new_event_loop()
    mail = loop.run_until_complete(loop.create_server(lambda: SMTP(inbox, loop=loop), "127.0.0.1", 0))
    inbox.web = f"http://127.0.0.1:{web.server_port}"
    inbox.smtp_port = mail.sockets[0].getsockname()[1]
    threads = [threading.Thread(target=serve) for serve in (web.serve_forever, loop.run_forever)]
    for thread in threads:
        thread.start()
    try:
        yield inbox
    finally:
        web.shutdown()
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            thread.join()
        web.server_close()
        mail.close()
        loop.run_until_complete(mail.wait_closed())
        loop.close()
