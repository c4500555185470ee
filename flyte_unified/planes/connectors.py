"""What laptop and cluster have in common of connectors: one client, and what describes, launches and tells of their jobs."""

from __future__ import annotations

from flyte_unified.dataproxy.job_logs import EitherLines, JobLines
from flyte_unified.dataproxy.logs import Lines
from flyte_unified.launchers.connectors.launcher import ConnectorLauncher
from flyte_unified.launchers.processes.secrets import Reveal
from flyte_unified.net.connectors import ConnectorClient
from flyte_unified.planes.api import Parts
from flyte_unified.plugins.connectors import Connectors
from flyte_unified.settings import Settings


class ConnectorParts:
    """``reveal`` knows values of secrets. Raises InvalidArgument for endpoints that are none.

    ``close`` comes after the launchers' and before the streams' end.
    """

    def __init__(self, settings: Settings, parts: Parts, *, reveal: Reveal) -> None:
        self._reveal = reveal
        self._poll = settings.connectors.poll
        self._limit = settings.execution.log_max_bytes
        self._parts = parts
        self._client = ConnectorClient(timeout=settings.connectors.timeout)
        connectors = Connectors(settings.connectors.endpoints, deployed=parts.connectors)
        self.describe = connectors.describe

    def launcher(self) -> ConnectorLauncher:
        """One for each term of a controller."""
        parts = self._parts
        return ConnectorLauncher(
            client=self._client,
            database=parts.database,
            store=parts.store,
            clock=parts.clock,
            poll=self._poll,
            logs=parts.logs,
            log_limit=self._limit,
            reveal=self._reveal,
        )

    def lines(self, others: Lines) -> Lines:
        """Of jobs and of ``others``."""
        parts = self._parts
        jobs = JobLines(
            client=self._client,
            database=parts.database,
            store=parts.store,
            clock=parts.clock,
            base=parts.logs,
            poll=self._poll,
        )
        return EitherLines(ledger=parts.ledger, jobs=jobs, others=others)

    def close(self) -> None:
        self._client.close()
