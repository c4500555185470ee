"""What is sent of what is owed, and by which way."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parseaddr

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.ids import ActionKey
from flyte_unified.ledger.api import Action
from flyte_unified.net.mail import Mail
from flyte_unified.net.webhooks import Webhooks
from flyte_unified.notifications import messages
from flyte_unified.notifications.model import Channel, Delivery
from flyte_unified.notifications.rules import Names
from flyte_unified.settings.sections import Notifications


class Outgoing:
    """``callback`` is where a condition is signalled."""

    def __init__(self, settings: Notifications, *, names: Names, callback: Callable[[ActionKey], str]) -> None:
        self._names = names
        self._callback = callback
        self._sender = settings.sender
        self._webhooks = Webhooks(timeout=settings.timeout, hosts=settings.hosts)
        self._mail = Mail(
            host=settings.smtp_host,
            port=settings.smtp_port,
            security=settings.smtp_security,
            user=settings.smtp_user,
            password=settings.smtp_password,
            timeout=settings.timeout,
        )

    async def send(self, each: Delivery, action: Action) -> None:
        """Raises Unavailable when another try may help, FailedPrecondition when it won't."""
        if each.channel is Channel.CONDITION:
            call = messages.condition_webhook(action, callback=self._callback(each.action), key=each.id)
            await self._webhooks.send(call)
            return
        template = self._names.template(each.rule_message)
        values = messages.values_of(action)
        if each.channel is Channel.WEBHOOK and template.HasField("webhook"):
            await self._webhooks.send(messages.webhook(template.webhook, values, key=each.id))
        elif each.channel is Channel.EMAIL and template.HasField("email"):
            at = each.ready_at or each.created_at
            message = messages.mail(template.email, values, key=each.id, sender=self._sender, at=at)
            sender = parseaddr(self._sender)[1]
            await self._mail.send(message, sender=sender, recipients=messages.recipients(template.email))
        else:
            raise FailedPrecondition(f"notifications.file has no {each.channel} of this name any more")

    async def close(self) -> None:
        await self._webhooks.close()
