"""Artifacts of tasks that another executor carries out: registered with the success that it tells of, by its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.message import DecodeError

from flyte_unified.artifacts.produced import Produced
from flyte_unified.core.errors import InvalidArgument, NotFound, PermissionDenied
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.api import OUTPUTS, file_in
from flyte_unified.ledger.api import Action, Beside, Ledger, Move, Retry, merge
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)


class ProducedElsewhere:
    """The ledger's Productions. Outputs that can't be read, being in a store of the other's own, say, declare nothing."""

    def __init__(self, *, produced: Produced, ledger: Ledger, store: DataStore) -> None:
        self._produced = produced
        self._ledger = ledger
        self._store = store

    async def of(self, action: Action, steps: Sequence[Move | Retry]) -> tuple[Sequence[Move | Retry], Beside | None]:
        last = steps[-1] if steps else None
        if not isinstance(last, Move) or last.to is not Phase.SUCCEEDED or action.spec_digest is None:
            return steps, None
        metadata = (await self._ledger.spec(action.spec_digest)).task_template.metadata
        outputs = await self._outputs(action, last) if metadata.produces_artifacts else None
        if outputs is None:
            return steps, None
        run, _ = await self._ledger.run(action.key.run_key)
        promise = await self._produced.promise(
            replace(action, attempt=last.attempt or action.attempt), outputs, by=run.created_by
        )
        details = run_definition_pb2.ActionAttempt()
        details.CopyFrom(last.details or promise.told)
        merge(details, promise.told)
        return [*steps[:-1], replace(last, details=details)], promise.beside

    async def _outputs(self, action: Action, success: Move) -> common_pb2.Outputs | None:
        uri = success.output_uri or action.output_uri
        try:
            return common_pb2.Outputs.FromString(await self._store.get(file_in(uri, OUTPUTS))) if uri else None
        except (NotFound, PermissionDenied, InvalidArgument, DecodeError) as error:
            _log.warning("outputs of another executor could not be read", action=str(action.key), uri=uri, error=str(error))
            return None
