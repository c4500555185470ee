"""Runs that recover another one (``flyte rerun --recover``): what succeeded there is not computed again."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from dataclasses import replace

from flyteidl2.common import run_pb2

from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import run_key
from flyte_unified.core.phases import SUCCESS, Phase
from flyte_unified.ledger.api import Action, Ledger, record_of


class Recovery:
    """``exists`` says whether an object is still in the storage."""

    def __init__(self, *, ledger: Ledger, exists: Callable[[str], Awaitable[bool]]) -> None:
        self._ledger = ledger
        self._exists = exists

    async def of(self, new: Action) -> Action:
        """A child as it begins: done already, with the outputs of then, where the recovered run has one of its name.

        The SDK's names are of task, code and inputs, so the same name means the same computation.
        """
        _, spec = await self._ledger.run(new.key.run_key)
        if spec.relation.relation_type != run_pb2.RELATION_TYPE_RECOVER or new.key.name in spec.recover.force_rerun_actions:
            return new
        source = run_key(spec.relation.related_to, field="run_spec.relation.related_to")
        try:
            known = await self._ledger.action(source.action(new.key.name))
        except NotFound:
            return new
        if known.phase not in SUCCESS or known.action_type is not new.action_type:
            return new
        if known.output_uri and not await self._exists(posixpath.join(known.output_uri, "outputs.pb")):
            return new
        record = record_of((Phase.QUEUED, new.created_at), (Phase.RECOVERED, new.created_at))
        record.outputs.output_uri = known.output_uri
        return replace(
            new,
            phase=Phase.RECOVERED,
            ended_at=new.created_at,
            output_uri=known.output_uri,
            record=record.SerializeToString(),
        )
