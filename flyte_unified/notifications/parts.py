"""The room, wired."""

from __future__ import annotations

from flyte_unified.core.clock import Clock
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Ledger
from flyte_unified.notifications.callbacks import Callbacks
from flyte_unified.notifications.outgoing import Outgoing
from flyte_unified.notifications.postman import Patience, Postman
from flyte_unified.notifications.rules import read_names
from flyte_unified.notifications.service import Notifications
from flyte_unified.settings import sections


class NotificationParts:
    """``key`` is the server's secret, ``address`` how clients reach it. Raises InvalidArgument for a file that is wrong."""

    def __init__(
        self,
        settings: sections.Notifications,
        *,
        key: bytes,
        address: str,
        database: Database,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        names = read_names(settings.file)
        callbacks = Callbacks(key=key, address=address, ledger=ledger)
        self.notifications = Notifications(names=names)
        self.routes = callbacks.routes
        self.postman = Postman(
            database=database,
            ledger=ledger,
            outgoing=Outgoing(settings, names=names, callback=callbacks.uri),
            patience=Patience(longest=settings.retry_max, total=settings.retry_for, kept=settings.keep),
            clock=clock,
        )
