"""One replica of a cluster, as far as the database knows it."""

from __future__ import annotations

from flyte_unified.cache.service import Cache
from flyte_unified.core.clock import SystemClock
from flyte_unified.db.api import Notice
from flyte_unified.db.feed import Feed, Row
from flyte_unified.db.postgres import PostgresDatabase
from flyte_unified.ledger.api import Action, Ledger, action_from
from flyte_unified.projects.service import Projects


class Replica:
    """``heard`` is what others did."""

    def __init__(self, url: str) -> None:
        self.database = PostgresDatabase(url, pool_size=2)
        self.ledger = Ledger(database=self.database, clock=SystemClock())
        clock = SystemClock()
        self.projects = Projects(database=self.database, clock=clock, domains=["development"])
        self.cache = Cache(database=self.database, clock=clock)
        self.feed = Feed(url, replica=self.database.replica, tell=self._tell, notice=self._noticed)
        self.heard: list[Action] = []

    async def start(self) -> None:
        await self.database.start()
        await self.feed.start()
        await self.projects.domains.start()

    async def stop(self) -> None:
        await self.feed.stop()
        self.ledger.changes.close()
        await self.database.stop()

    def _noticed(self, notice: Notice | None) -> None:
        self.projects.noticed(notice)
        self.cache.noticed(notice)

    def _tell(self, rows: list[Row]) -> None:
        actions = [action_from(row) for row in rows]
        self.heard += actions
        self.ledger.changes.publish(actions)
