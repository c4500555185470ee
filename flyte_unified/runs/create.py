"""CreateRun: from a request to a run that is stored, or to nothing.

A run that is accepted is a row; everything that could refuse it is asked before. Its inputs lie under their own digest, so two
calls that race for a name never write the same file, and stored inputs are never overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.clock import SECOND, Clock
from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    FlyteUnifiedError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from flyte_unified.core.ids import ROOT_ACTION, RunKey
from flyte_unified.core.queues import Queues
from flyte_unified.dataproxy.api import INPUTS, Specs, cache_key, code_bundle, file_in, spec_in
from flyte_unified.ledger.api import Action, EncodedSpec, Ledger, NewRun, Run, task_action
from flyte_unified.notifications.api import Notifications
from flyte_unified.runs import requests, store, triggered, views
from flyte_unified.runs.requests import Inputs, Target
from flyte_unified.storage.api import DataStore, join
from flyte_unified.triggers.api import Trigger, Triggers, inputs_of

_INPUTS = "_inputs"
"""No action can have this name, so the directory is the run's own."""
_REPEATED_WITHIN = 300 * SECOND
"""Clients repeat a call within seconds; a task's request ids are short, and the same one may come again by chance."""

Complete = Callable[[run_pb2.RunSpec, str, str], Awaitable[None]]
"""Changes the spec of a new run in a project and domain."""


class Creator:
    """``base`` is the address below which runs keep their data, unless a run asks for another.

    ``require_project`` raises NotFound for a project or domain that does not exist or takes no runs. ``complete`` gives a run
    what its project's settings say and the run itself does not.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        data: DataStore,
        specs: Specs,
        triggers: Triggers,
        clock: Clock,
        require_project: Callable[[str, str], Awaitable[None]],
        complete: Complete,
        queues: Queues,
        notifications: Notifications,
        base: str,
    ) -> None:
        self._ledger = ledger
        self._data = data
        self._specs = specs
        self._triggers = triggers
        self._clock = clock
        self._require_project = require_project
        self._complete = complete
        self._queues = queues
        self._notifications = notifications
        self._base = base.rstrip("/")

    async def create(self, message: run_service_pb2.CreateRunRequest, ctx: CallContext) -> run_service_pb2.CreateRunResponse:
        """Raises InvalidArgument, NotFound, AlreadyExists or FailedPrecondition, and then has stored nothing."""
        target = requests.target(message)
        await self._require_project(target.key.project, target.key.domain)
        trigger = None
        if message.WhichOneof("task") == "trigger_name":
            trigger = (await self._triggers.get(message.trigger_name)).trigger
            message = await self._as_triggered(message, target.key, trigger)
        deployed = self._specs.of_task(trigger.task) if trigger is not None else spec_in(message, self._specs)
        spec = EncodedSpec.of(await deployed)
        requests.check_task(spec.message)
        inputs = requests.inputs(message, spec.message)
        content = requests.content(message, spec, inputs)
        request_id = None if target.chosen else ctx.request_id or None
        if request_id is not None and (made := await self._made_by(target.key, request_id)) is not None:
            if self._clock.now() - made.created_at < _REPEATED_WITHIN and made.content == content:
                return await self._response(made, org=target.org)
            request_id = None
        # Where nothing is written before the run is, the ledger's own look at the name is enough.
        if target.chosen and inputs.data is not None and (known := await self._known(target.key)) is not None:
            return await self._same(known, content, org=target.org)
        new = await self._prepare(
            message,
            target,
            spec,
            inputs,
            trigger,
            content=content,
            request_id=request_id,
            created_by=ctx.identity.subject,
        )
        return await self._store(new, org=target.org)

    async def _as_triggered(
        self, message: run_service_pb2.CreateRunRequest, run: RunKey, trigger: Trigger
    ) -> run_service_pb2.CreateRunRequest:
        """The request with what the trigger was deployed with."""
        if trigger.key[:2] != run[:2]:
            raise InvalidArgument(f"trigger_name: runs of trigger {trigger.key} are in its own project and domain")
        spec = trigger.spec_message()
        inline = message.WhichOneof("input_wrapper") == "inputs"
        stored = await inputs_of(spec, self._data.get) if inline else spec.inputs
        return triggered.complete(message, spec, stored, kickoff=triggered.kickoff(trigger))

    async def _prepare(
        self,
        message: run_service_pb2.CreateRunRequest,
        target: Target,
        spec: EncodedSpec,
        inputs: Inputs,
        trigger: Trigger | None,
        *,
        content: str,
        request_id: str | None,
        created_by: str,
    ) -> NewRun:
        """Checks what the run needs of the storage, and puts its inputs there."""
        now = self._clock.now()
        run_spec, start = requests.run_spec(message, now=now)
        await self._complete(run_spec, target.key.project, target.key.domain)
        self._queues.check_run(run_spec)
        owing = self._notifications.of_run(target.key, run_spec, now=now)
        if trigger is not None:
            inputs = triggered.at(inputs, spec.message, start, kickoff=triggered.kickoff(trigger))
        output_base = self._output_base(target.key, run_spec)
        await self._check_bundle(spec)
        input_uri = await self._put_inputs(inputs, output_base)
        run = Run(
            key=target.key,
            run_spec=run_spec.SerializeToString(),
            labels=dict(run_spec.labels.values),
            source=message.source,
            request_id=request_id,
            content=content,
            output_base=output_base,
            start_time=start,
            created_by=created_by,
            created_at=now,
            **triggered.origin(trigger),
        )
        root = task_action(
            target.key.action(ROOT_ACTION),
            spec,
            now=now,
            parent=None,
            input_uri=input_uri,
            output_base=output_base,
            cache_key=cache_key(spec.message, inputs.hashed),
            queue=run_spec.queue,
        )
        return NewRun(run=run, root=root, spec=spec.raw, chosen=target.chosen, beside=owing)

    def _output_base(self, key: RunKey, run_spec: run_pb2.RunSpec) -> str:
        base = join(run_spec.run_base_dir or self._base, *key)
        if run_spec.run_base_dir and not self._data.owns(base):
            raise InvalidArgument(
                f"run_spec.run_base_dir: {run_spec.run_base_dir!r} is not below the server's storage; leave it empty"
            )
        return base

    async def _check_bundle(self, spec: EncodedSpec) -> None:
        bundle = code_bundle(spec.message.task_template)
        if bundle and self._data.owns(bundle) and await self._data.head(bundle) is None:
            raise FailedPrecondition(
                f"the task's code bundle {bundle} is not in the storage any more, but the client remembers that it "
                "uploaded it: run `flyte delete local-cache`, then run the task again"
            )

    async def _put_inputs(self, inputs: Inputs, output_base: str) -> str:
        if inputs.data is None:
            uri = file_in(inputs.uri, INPUTS)
            try:
                found = await self._data.head(uri)
            except PermissionDenied as error:
                message = f"offloaded_input_data.uri: {inputs.uri!r} is not below the server's storage"
                raise InvalidArgument(message) from error
            if found is None:
                raise InvalidArgument(f"offloaded_input_data.uri: there is no {INPUTS} at {inputs.uri!r}")
            await self._data.check_room()
            return uri
        await self._data.check_room()
        uri = join(output_base, _INPUTS, hashlib.sha256(inputs.data).hexdigest()[:32], INPUTS)
        await self._data.put(uri, inputs.data, if_absent=True)
        return uri

    async def _store(self, new: NewRun, *, org: str) -> run_service_pb2.CreateRunResponse:
        try:
            run, root, _ = await self._ledger.create_run(new)
        except AlreadyExists:  # a call that ran beside this one was faster
            if new.chosen:
                return await self._same(await self._existing(new.run.key), new.run.content, org=org)
            run, root, _ = await self._ledger.create_run(replace(new, run=replace(new.run, request_id=None)))
        if run.key != new.run.key and new.root.input_uri.startswith(new.run.output_base):
            with suppress(FlyteUnifiedError):  # the run is there, made by this call's twin; a file too many does no harm
                await self._data.delete(new.root.input_uri)
        return _response(run, root, org=org)

    async def _same(self, known: Run, content: str, *, org: str) -> run_service_pb2.CreateRunResponse:
        """The answer to a repeated call. Raises AlreadyExists naming what differs."""
        if different := requests.differences(known.content, content):
            raise AlreadyExists(f"run_id.name: run {known.key} exists, and differs in {' and '.join(different)}")
        return await self._response(known, org=org)

    async def _response(self, run: Run, *, org: str) -> run_service_pb2.CreateRunResponse:
        return _response(run, await self._ledger.action(run.key.action(ROOT_ACTION)), org=org)

    async def _made_by(self, key: RunKey, request_id: str) -> Run | None:
        found = await self._ledger.read(lambda: store.made_by(key.project, key.domain, request_id))
        return await self._existing(found) if found is not None else None

    async def _known(self, key: RunKey) -> Run | None:
        try:
            return await self._existing(key)
        except NotFound:
            return None

    async def _existing(self, key: RunKey) -> Run:
        return (await self._ledger.run(key))[0]


def _response(run: Run, root: Action, *, org: str) -> run_service_pb2.CreateRunResponse:
    spec = run_pb2.RunSpec.FromString(run.run_spec)
    return run_service_pb2.CreateRunResponse(run=views.run(root, run, spec, org=org))
