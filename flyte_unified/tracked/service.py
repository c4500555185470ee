"""Tracked runs: carried out by their clients, reported here (flyteidl2/workflow/tracked_run_service.proto).

They are rows of the ledger like any other, so that whatever shows runs shows them too. Their mark (``Action.reported``) keeps
them from the executor, and from lists of what is carried out here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from flyteidl2.common import identifier_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import tracked_run_service_pb2 as idl

from flyte_unified.core.clock import Clock, Micros, micros, timestamp
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, FlyteUnifiedError, InvalidArgument
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey, action_key, chosen_run_name, scope_part
from flyte_unified.dataproxy.api import Specs, check_id, spec_in, tracked_base
from flyte_unified.ledger.api import Action, EncodedSpec, Ledger, NewRun, Report, Reported, Run, task_action
from flyte_unified.tracked import reports

_RESERVED = ("r", "u")
"""How names begin that are made here, or by another part of Flyte."""
_ABORTED = "User requested abort"


class TrackedRuns:
    """``base`` is the address below which uploads lie, and ``owns`` says whether an address is of the server's storage.

    ``require_project`` raises NotFound for a project or domain that does not exist or takes no runs.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        specs: Specs,
        clock: Clock,
        require_project: Callable[[str, str], Awaitable[None]],
        owns: Callable[[str], bool],
        base: str,
    ) -> None:
        self._ledger = ledger
        self._specs = specs
        self._clock = clock
        self._require_project = require_project
        self._owns = owns
        self._base = base

    async def create(self, message: idl.CreateTrackedRunRequest, ctx: CallContext) -> tuple[Run, Action]:
        """Raises InvalidArgument, NotFound or AlreadyExists, and then has stored nothing."""
        key, chosen = _target(message)
        await self._require_project(key.project, key.domain)
        spec = EncodedSpec.of(await spec_in(message, self._specs))
        check_id(spec.message.task_template.id)
        inputs = message.offloaded_input_data.uri
        self._check_owned(inputs, field="offloaded_input_data.uri")
        now = self._clock.now()
        start = micros(message.run_start_time, field="run_start_time") if message.HasField("run_start_time") else now
        born = Micros(min(start, now))
        run_spec = _run_spec(message, start)
        base = tracked_base(self._base, key)
        run = Run(
            key=key,
            run_spec=run_spec.SerializeToString(),
            labels=dict(run_spec.labels.values),
            source=run_definition_pb2.RUN_SOURCE_TRACKED,
            request_id=None if chosen else ctx.request_id or None,
            content=_content(message),
            output_base=base,
            start_time=start,
            created_by=ctx.identity.subject,
            created_at=born,
        )
        root = task_action(key.action(ROOT_ACTION), spec, now=born, parent=None, input_uri=inputs, output_base=base)
        new = NewRun(run=run, root=replace(root, updated_at=now, reported=0), spec=spec.raw, chosen=chosen)
        try:
            run, root, _ = await self._ledger.create_run(new)
        except AlreadyExists:
            if chosen:
                raise
            # The request id, which is short, came again by chance.
            run, root, _ = await self._ledger.create_run(replace(new, run=replace(run, request_id=None)))
        return run, root

    async def report(
        self, message: idl.ReportTrackedActionsRequest, run: RunKey, ctx: CallContext
    ) -> list[FlyteUnifiedError | None]:
        """What is wrong with each report; the others are kept. ``run`` is one that is tracked."""
        wrong: list[FlyteUnifiedError | None] = []
        good: list[Report] = []
        for index, update in enumerate(message.updates):
            try:
                good.append(self._report(update, run, ctx.identity.subject, field=f"updates[{index}]"))
                wrong.append(None)
            except FlyteUnifiedError as error:
                wrong.append(error)
        told = iter(await self._ledger.report(good)) if good else iter(())
        return [error if error is not None else next(told) for error in wrong]

    async def abort(self, run: RunKey, *, reason: str, principal: str) -> None:
        """Every action of the run that has not ended; nothing where the run has."""
        if not (await self._ledger.action(run.action(ROOT_ACTION))).terminal:
            await self._ledger.abort_run(run, reason=reason or _ABORTED, principal=principal)

    def _report(self, update: idl.TrackedActionUpdate, run: RunKey, principal: str, *, field: str) -> Report:
        event = update.event
        key = action_key(event.id, field=f"{field}.event.id")
        if key.run_key != run:
            raise InvalidArgument(f"{field}.event.id: action {key} is not of run {run}, which the request is about")
        reports.check(event, field=f"{field}.event")
        for name in ("output_uri", "report_uri"):
            self._check_owned(getattr(event.outputs, name), field=f"{field}.event.outputs.{name}")
        spec = EncodedSpec.of(update.task.spec) if update.WhichOneof("spec") == "task" else None
        return Report(
            key=key,
            parent=update.parent_name,
            spec=(spec.digest, spec.raw) if spec is not None else None,
            judge=partial(self._judge, key, update, spec, self._clock.now(), principal),
        )

    def _judge(
        self,
        key: ActionKey,
        update: idl.TrackedActionUpdate,
        spec: EncodedSpec | None,
        now: Micros,
        principal: str,
        known: Action | None,
        parent: Action | None,
    ) -> Reported:
        action = known
        if action is None:
            base = tracked_base(self._base, key.run_key)
            action = reports.first(key, update, spec, parent, base=base, now=now)
        return reports.follow(action, update.event, now=now, principal=principal)

    def _check_owned(self, uri: str, *, field: str) -> None:
        if uri and not self._owns(uri):
            raise InvalidArgument(f"{field}: {uri[:256]!r} is not below the server's storage")


def _target(message: idl.CreateTrackedRunRequest) -> tuple[RunKey, bool]:
    """Where the run is to be, and whether its client chose the name."""
    match message.WhichOneof("id"):
        case "run_id":
            run: identifier_pb2.RunIdentifier = message.run_id
            name = chosen_run_name(run.name)
            if name.startswith(_RESERVED):
                raise InvalidArgument(f"run_id.name: {name!r} begins like the names of runs that are carried out here")
            project = scope_part(run.project, field="run_id.project")
            return RunKey(project, scope_part(run.domain, field="run_id.domain"), name), True
        case "project_id":
            place: identifier_pb2.ProjectIdentifier = message.project_id
            project = scope_part(place.name, field="project_id.name")
            domain = scope_part(place.domain, field="project_id.domain")
            return RunKey(project, domain, f"local-{secrets.token_hex(8)}"), False
    raise InvalidArgument("id: one of run_id and project_id must be set")


def _run_spec(message: idl.CreateTrackedRunRequest, start: Micros) -> run_pb2.RunSpec:
    """As it is stored: the request's labels are the run's."""
    spec = run_pb2.RunSpec()
    spec.CopyFrom(message.run_spec)
    spec.labels.values.update(message.labels)
    spec.run_start_time.CopyFrom(timestamp(start))
    return spec


def _content(message: idl.CreateTrackedRunRequest) -> str:
    """What a repeated CreateRun is compared by."""
    said = idl.CreateTrackedRunRequest()
    said.CopyFrom(message)
    said.ClearField("run_id")
    return hashlib.sha256(said.SerializeToString(deterministic=True)).hexdigest()
