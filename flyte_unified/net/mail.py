"""The client of one SMTP server."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

from flyte_unified.core.errors import FailedPrecondition, Unavailable


class Mail:
    """``security`` is starttls, tls or none. Without a ``host`` nothing is sent."""

    def __init__(self, *, host: str, port: int, security: str, user: str, password: str, timeout: float) -> None:
        self._host = host
        self._port = port
        self._security = security
        self._user = user
        self._password = password
        self._timeout = timeout

    async def send(self, message: EmailMessage, *, sender: str, recipients: Sequence[str]) -> None:
        """Raises Unavailable when another try may help, FailedPrecondition when it won't."""
        if not self._host:
            raise FailedPrecondition("notifications.smtp_host is empty: this server sends no e-mail")
        import aiosmtplib  # most servers send none

        try:
            await aiosmtplib.send(
                message,
                sender=sender,
                recipients=list(recipients),
                hostname=self._host,
                port=self._port,
                username=self._user or None,
                password=self._password or None,
                use_tls=self._security == "tls",
                start_tls=self._security == "starttls",
                timeout=self._timeout,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _failure([refused.code for refused in error.recipients]) from None
        except aiosmtplib.SMTPResponseException as error:
            raise _failure([error.code]) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise Unavailable(f"the SMTP server could not be used: {error}") from None


def _failure(codes: Sequence[int]) -> Unavailable | FailedPrecondition:
    """Codes that begin with 5 are final (RFC 5321 §4.2.1)."""
    told = f"the SMTP server answered {', '.join(map(str, sorted(set(codes))))}"
    return FailedPrecondition(told) if all(500 <= code < 600 for code in codes) else Unavailable(told)
