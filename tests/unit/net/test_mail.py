"""Mail by a real SMTP server, and by none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from flyte_unified.core.errors import FailedPrecondition, Unavailable
from flyte_unified.net.mail import Mail


class Post:
    """Takes what its test lets it take."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.answer = "250 OK"
        self.port = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return "550 nobody here" if address.startswith("nobody") else "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.envelopes.append(envelope)
        return self.answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, told: Any) -> AuthResult:
        right = isinstance(told, LoginPassword) and (told.login, told.password) == (b"flyte", b"sesame")
        return AuthResult(success=right, handled=right)


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    post = Post()
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        return SMTP(post, loop=loop, authenticator=post.authenticate, auth_require_tls=False)

    async with await loop.create_server(protocol, "127.0.0.1", 0) as server:
        post.port = server.sockets[0].getsockname()[1]
        yield post


async def send(
    post: Post, *to: str, host: str = "127.0.0.1", security: str = "none", user: str = "", password: str = ""
) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "s", "f@x", "a@x"
    mail = Mail(host=host, port=post.port, security=security, user=user, password=password, timeout=5)
    await mail.send(message, sender="f@x", recipients=to or ("a@x", "hidden@x"))


async def test_the_envelope_says_who_gets_it(post: Post) -> None:
    """Whoever the headers name. Signed in, where there is somebody to sign in."""
    await send(post)
    await send(post, user="flyte", password="sesame")
    assert [envelope.rcpt_tos for envelope in post.envelopes] == [["a@x", "hidden@x"]] * 2
    assert b"hidden" not in post.envelopes[0].content  # type: ignore[operator]  # bytes


@pytest.mark.parametrize("answer", ["451 later", "421 full"])
async def test_what_another_try_may_mend(post: Post, answer: str) -> None:
    """The server's own word for it (RFC 5321 §4.2.1), a server without encryption, and one that is not there."""
    post.answer = answer
    with pytest.raises(Unavailable, match=f"answered {answer[:3]}"):
        await send(post)
    with pytest.raises(Unavailable, match="STARTTLS"):
        await send(post, security="starttls")
    post.port = 1
    with pytest.raises(Unavailable, match="could not be used"):
        await send(post)


async def test_what_another_try_would_not_mend(post: Post) -> None:
    """No such mailbox, a message that is refused, a wrong password, and no server at all."""
    with pytest.raises(FailedPrecondition, match="answered 550"):
        await send(post, "nobody@x")
    post.answer = "554 no"
    with pytest.raises(FailedPrecondition, match="answered 554"):
        await send(post)
    with pytest.raises(FailedPrecondition, match="answered 535") as raised:
        await send(post, user="flyte", password="wrong")
    assert "wrong" not in raised.value.message
    with pytest.raises(FailedPrecondition, match="smtp_host is empty"):
        await send(post, host="")


async def test_a_mail_that_some_get_is_sent(post: Post) -> None:
    """Else those would get it again with each try."""
    await send(post, "nobody@x", "a@x")
    assert len(post.envelopes) == 1
