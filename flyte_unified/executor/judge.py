"""What is read around an attempt: its context before it starts, its files when its process is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.clock import Clock, Micros
from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.images import OURS
from flyte_unified.core.phases import Phase
from flyte_unified.executor import outcome, policy, reconcile, records
from flyte_unified.executor.caching import Caching
from flyte_unified.executor.reconcile import View
from flyte_unified.launchers.api import INTERPRETER
from flyte_unified.ledger.api import Action, Beside, Failure, Ledger, Move, Retry
from flyte_unified.plugins.api import Container, Exit, Pod, Process, TaskContext, Work
from flyte_unified.plugins.container import wants_inputs
from flyte_unified.plugins.pods.build import has_runtime
from flyte_unified.storage.api import DataStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``endpoint`` tells where tasks of a run reach the server; waits in seconds."""

    endpoint: Callable[[RunKey], str]
    raw_root: str
    """Where tasks write data when their run names no place."""
    log_link: Callable[[ActionKey, int], str]
    interpreter: str = ""
    namespace: Callable[[ActionKey], str] = lambda _: ""
    """Where the objects of an action are in a cluster."""
    apps: Callable[[str, str], str] = lambda *_: ""
    """How tasks of a project's domain reach its apps."""
    system_retries: int = 3
    system_backoff: policy.Backoff = field(default_factory=policy.Backoff)
    kill_grace: float = 5.0


class Promise(NamedTuple):
    """What is to be written with a success, and what the attempt's record is to say of it."""

    beside: Beside | None
    told: run_definition_pb2.ActionAttempt


class Produced(Protocol):
    """Registers what tasks declare to have produced."""

    async def promise(self, action: Action, outputs: common_pb2.Outputs, *, by: str) -> Promise: ...


class Verdict(NamedTuple):
    """What the ledger is to be told of an attempt, and what to write with its success."""

    steps: tuple[Move | Retry, ...]
    beside: Beside | None


class Judge:
    """Decides nothing of its own: ``outcome`` and ``reconcile`` do, from what this reads."""

    def __init__(
        self, *, ledger: Ledger, store: DataStore, caching: Caching, produced: Produced, clock: Clock, options: Options
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._caching = caching
        self._produced = produced
        self._clock = clock
        self._options = options

    async def context(self, action: Action) -> TaskContext:
        """What a plugin may know of the attempt under way."""
        run, run_spec = await self._ledger.run(action.key.run_key)
        spec = await self._ledger.spec(action.spec_digest or "")
        prefix = f"{action.output_base.rstrip('/')}/{action.key.name}"
        raw = run_spec.raw_data_storage.raw_data_prefix.rstrip("/") or self._options.raw_root
        return TaskContext(
            action=action,
            spec=spec,
            run=run,
            run_spec=run_spec,
            output_prefix=f"{prefix}/{action.attempt}",
            previous_prefix=f"{prefix}/{action.attempt - 1}" if action.attempt > 1 else "",
            raw_prefix=f"{raw}/{'/'.join(action.key)}/{action.attempt}",
            endpoint=self._options.endpoint(action.key.run_key),
            namespace=self._options.namespace(action.key),
            apps=self._options.apps(action.key.project, action.key.domain),
            inputs=await self.inputs(action) if wants_inputs(spec.task_template) else None,
        )

    async def inputs(self, action: Action) -> common_pb2.Inputs:
        """Raises NotFound."""
        return common_pb2.Inputs.FromString(await self._store.get(action.input_uri))

    async def verdict(self, view: View) -> Verdict:
        """Of an attempt whose process is gone."""
        action, observed, work = view.action, view.observed, view.work
        context = await self.context(action)
        ended = observed.ended_at if observed is not None and observed.ended_at is not None else self._clock.now()
        ending = observed.exit if observed is not None and observed.exit is not None else Exit()
        if isinstance(work, Process):
            ending = replace(ending, fault=work.fault(ending))
        outputs = await self._read(f"{context.output_prefix}/outputs.pb")
        result = outcome.judge(
            error_file=await self._read(f"{context.output_prefix}/error.pb"),
            outputs_file=outputs,
            outputs=[entry.key for entry in context.spec.task_template.interface.outputs.variables],
            ending=ending,
            environment=_environment(work, self._options.interpreter),
            runtime=has_runtime(context.spec.task_template),
        )
        before = reconcile.started(action, observed) if observed is not None and observed.started_at is not None else ()
        details = records.joined(observed.details if observed is not None else None, records.end(ending, at=ended))
        beside = None
        last: Move | Retry
        if isinstance(result, outcome.Succeeded):
            if outputs is None:  # whoever called the task reads them nonetheless
                await self._store.put(f"{context.output_prefix}/outputs.pb", b"", if_absent=True)
            last = await self._succeeded(action, context, ended)
            if outputs is not None and context.spec.task_template.metadata.produces_artifacts:
                produced = common_pb2.Outputs.FromString(outputs)
                beside, told = await self._produced.promise(action, produced, by=context.run.created_by)
                details = records.joined(details, told)
        elif view.draining:  # whatever the task says of it: we ended it
            last = Retry(attempt=action.attempt, error=result.error, failure=Failure.INTERRUPTION, at=ended)
        else:
            last = reconcile.failed(
                action,
                result,
                limits=view.limits,
                system_retries=self._options.system_retries,
                system_backoff=self._options.system_backoff,
                at=ended,
            )
        return Verdict((*before, replace(last, details=details)), beside)

    async def _succeeded(self, action: Action, context: TaskContext, at: Micros) -> Move:
        report = f"{context.output_prefix}/report.html"
        has_report = context.spec.task_template.metadata.generates_deck.value and await self._store.head(report) is not None
        return Move(
            to=Phase.SUCCEEDED,
            attempt=action.attempt,
            at=at,
            output_uri=context.output_prefix,
            report_uri=report if has_report else "",
            cache_status=await self._caching.put(action, context.output_prefix) if action.cache_key else None,
        )

    async def _read(self, uri: str) -> bytes | None:
        try:
            return await self._store.get(uri)
        except NotFound:
            return None


def _environment(work: Work | None, default: str) -> str:
    """Where a task ran, and how it could run elsewhere, for people."""
    match work:
        case Pod(image=image) | Container(image=image):
            return f"This task ran in the image {image}. Add what it needs to its image."
        case Process(image=image) if image.startswith(OURS) and INTERPRETER not in work.environment:
            return f"This task ran in the image {image}. Add what it needs to its image."
        case Process():
            pass
        case _:
            return "Add what the task needs to its image."
    return (
        f"This task ran in {work.environment.get(INTERPRETER) or default}. Install what it needs there, or use another "
        f"interpreter: flyte-unified start --python PATH, or {INTERPRETER}=PATH in the environment variables of the task or "
        "the run."
    )
