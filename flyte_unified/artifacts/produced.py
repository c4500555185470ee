"""Artifacts that tasks produce: registered in the transaction that notes their success, so once, and never without it.

A task declares them beside its outputs. It is done by then: a declaration that can't be met fails nothing, and is told in the
record of the attempt.
"""

from __future__ import annotations

from collections import Counter

import structlog
from flyteidl2.artifact import artifact_pb2
from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.artifacts import requests
from flyte_unified.artifacts.model import NameKey, Wanted, differences
from flyte_unified.artifacts.service import Artifacts
from flyte_unified.core.clock import Clock, timestamp
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument
from flyte_unified.db.api import Notice, Work
from flyte_unified.executor.api import Promise
from flyte_unified.ledger.api import Action, Beside

_log = structlog.get_logger(__name__)


class Produced:
    """The executor's port of this name."""

    def __init__(self, *, artifacts: Artifacts, clock: Clock) -> None:
        self._artifacts = artifacts
        self._clock = clock

    async def promise(self, action: Action, outputs: common_pb2.Outputs, *, by: str) -> Promise:
        """What ``action`` declares in ``outputs``. ``by`` is who started its run."""
        values = {literal.name: literal.value for literal in outputs.literals}
        unnamed = Counter(each.name for each in outputs.produced_artifacts if not each.version)
        found: dict[tuple[str, ...], Wanted] = {}
        record = run_definition_pb2.ActionAttempt()
        for each in outputs.produced_artifacts:
            try:
                wanted = _wanted(action, each, values, by=by, alone=unnamed[each.name] == 1)
                if wanted.key in found:
                    raise InvalidArgument(f"version: {wanted.key.version!r} is of another output")
                if await self._is_new(wanted):
                    found[wanted.key] = wanted
            except FlyteUnifiedError as error:
                told = f"output {each.output} is not registered as artifact {each.name}: {error.message}"
                _log.warning("an artifact was not registered", action=str(action.key), reason=told)
                self._tell(record, told)
        return Promise(self._registration([*found.values()]) if found else None, record)

    async def _is_new(self, wanted: Wanted) -> bool:
        """Raises InvalidArgument where there is another of that version."""
        known = await self._artifacts.known(wanted.key)
        if known is not None and (different := differences(known.spec, wanted.spec)):
            raise InvalidArgument(f"version: {wanted.key.version!r} exists, with another {' and '.join(different)}")
        return known is None

    def _registration(self, wanted: list[Wanted]) -> Beside:
        now = self._clock.now()

        def work() -> Work[list[Notice]]:
            _, notices = yield from self._artifacts.added(wanted, now=now, strict=False)
            return notices

        return Beside(work, self._artifacts.committed)

    def _tell(self, record: run_definition_pb2.ActionAttempt, message: str) -> None:
        kind = run_definition_pb2.ClusterEvent.TYPE_WARNING
        at = timestamp(self._clock.now())
        record.cluster_events.add(occurred_at=at, message=message, reason="NotRegistered", type=kind, count=1)


def _wanted(
    action: Action, declared: common_pb2.ProducedArtifact, values: dict[str, literals_pb2.Literal], *, by: str, alone: bool
) -> Wanted:
    """Without a version of its own it gets the attempt's; outputs that share a name tell themselves apart by theirs."""
    key = action.key
    name = NameKey(key.project, key.domain, requests.name_part(declared.name, field="name"))
    attempt = action.attempt - 1
    version = declared.version or f"{key.run}-{key.name}-{attempt}" + ("" if alone else f"-{declared.output}")
    source = artifact_pb2.TaskActionSource(action=key.idl(), attempt=attempt)
    spec = artifact_pb2.ArtifactSpec(
        value=values.get(declared.output),
        type=declared.type,
        info=declared.info,
        source=artifact_pb2.ArtifactSource(task_action=source),
        parent_artifacts=declared.parent_artifacts,
        partitions=declared.partitions if declared.HasField("partitions") else None,
        time_partition=declared.time_partition if declared.HasField("time_partition") else None,
    )
    return requests.wanted(name.version(requests.version_part(version, field="version")), spec, org="", by=by)
