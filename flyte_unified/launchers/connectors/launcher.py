"""The launcher port over connectors: an attempt becomes a job that somebody else runs.

Each job has a task here, which asks its connector how it stands: the protocol has nothing else to learn it by. A connector that
is away is waited for; what it says of a failure is the user's to read. To be ended is one more thing that the task notices,
so that no job is lost between its creation and the moment when it is known.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from flyteidl2.connector import connector_pb2
from flyteidl2.core import execution_pb2, security_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2
from google.protobuf.message import DecodeError

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import (
    FailedPrecondition,
    FlyteUnifiedError,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database
from flyte_unified.launchers.api import Attempt, Ended, Event, Progress, Started, Unlaunchable, WorkId
from flyte_unified.launchers.connectors import store as sql
from flyte_unified.launchers.connectors.directory import Directory
from flyte_unified.launchers.connectors.job import Kept, Told, ending, failure, happened, phase
from flyte_unified.launchers.connectors.logs import JobLogs
from flyte_unified.launchers.processes.secrets import Reveal
from flyte_unified.ledger.api import Failure
from flyte_unified.net.connectors import ConnectorClient, NoAnswer
from flyte_unified.plugins.api import Exit, Job
from flyte_unified.storage.api import DataStore

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)

_FIRST = 0.2
_GROWTH = 1.5
_LONGEST = 60.0
"""Seconds between tries of what failed."""
_FAILURES = 10
"""Times in a row that a connector may fail to tell of a job before the attempt is given up."""
_DELETING, _GIVING_UP = 300.0, 30.0
"""Seconds for which a connector is asked to delete a job, and one that it fails to tell of."""
_LOG, _LAST_WORDS = 60.0, 5.0
"""Seconds for the log of a job that has ended, and of one that is to be deleted."""
_CREATING = 2.0
"""Seconds that a close gives to a creation under way: whose answer is lost, is lost itself."""


@dataclass(slots=True, eq=False)
class _Item:
    """One attempt."""

    id: WorkId
    work: Job | None = None
    """None for one that an earlier server launched."""
    job: Kept | None = None
    task: asyncio.Task[None] | None = None
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    creating: bool = False
    away: bool = False
    leftover: bool = False
    """It could not be deleted: the next server will try again."""
    told: Told = field(default_factory=Told)


class ConnectorLauncher:
    """``poll``: seconds between questions about a job, once the first are asked. Jobs outlive it.

    ``reveal`` knows values of secrets.
    """

    def __init__(
        self,
        *,
        client: ConnectorClient,
        database: Database,
        store: DataStore,
        clock: Clock,
        poll: float,
        logs: str,
        log_limit: int,
        reveal: Reveal,
    ) -> None:
        self._client = client
        self._database = database
        self._store = store
        self._clock = clock
        self._poll = poll
        self._reveal = reveal
        self._directory = Directory(client)
        self._logs = JobLogs(client=client, store=store, clock=clock, base=logs, limit=log_limit)
        self._on_event: Callable[[Event], None] = lambda _: None
        self._items: dict[WorkId, _Item] = {}
        self._closed = False

    async def start(self, on_event: Callable[[Event], None]) -> list[Event]:
        """Goes on with the jobs that were not known to have ended; their connectors tell how they stand."""
        self._on_event = on_event
        for job in await self._database.read(sql.every):
            self._begin(_Item(job.id, job=job))
        return [Progress(id=work, at=self._clock.now(), phase=Phase.QUEUED) for work in self._items]

    async def launch(self, attempt: Attempt) -> None:
        if self._closed:
            raise Unavailable("the server is stopping")
        if not isinstance(attempt.work, Job):
            raise TypeError(f"{attempt.id} is no job")
        if attempt.id not in self._items:
            self._begin(_Item(attempt.id, work=attempt.work))

    async def kill(self, work: WorkId, *, grace: float) -> None:
        """A job has no grace of its own: its connector knows how to end it."""
        if (item := self._items.get(work)) is not None:
            item.unwanted.set()

    async def forget(self, work: WorkId) -> None:
        item = self._items.get(work)
        if item is None:
            return
        if item.job is not None and not item.leftover:
            await self._database.write(partial(sql.remove, work))
        self._items.pop(work, None)

    async def clear(self, action: ActionKey, *, attempts: int) -> None:
        """A job leaves nothing here."""

    async def stop(self, *, grace: float) -> None:
        """Whatever runs elsewhere goes on."""
        await self.close()

    async def close(self) -> None:
        self._closed = True
        creating = [item.task for item in self._items.values() if item.creating and item.task is not None]
        if creating:
            await asyncio.wait(creating, timeout=_CREATING)
        self._on_event = lambda _: None
        tasks = [item.task for item in self._items.values() if item.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, item: _Item) -> None:
        self._items[item.id] = item
        item.task = asyncio.create_task(self._carry(item), name=f"job of {item.id}")

    async def _carry(self, item: _Item) -> None:
        """One attempt from its launch to its end."""
        try:
            ended = await self._created(item) if item.job is None else None
            if ended is None and item.job is not None and not self._closed:
                ended = await self._followed(item, item.job)
            if self._closed:
                return
            self._on_event(Ended(id=item.id, at=self._clock.now(), exit=ended or Exit()))
        except Exception as error:
            _log.exception("a job is given up", work=str(item.id))
            message = f"the server failed at this job: {error}"
            ended = failure("ConnectorFailed", message, whose=Failure.SYSTEM)
            self._on_event(Ended(id=item.id, at=self._clock.now(), exit=ended))

    # Creation

    async def _created(self, item: _Item) -> Exit | None:
        """None once there is a job; else what the attempt ends with."""
        work = item.work
        if work is None:
            return None
        template = work.request.template
        category = connector_pb2.TaskCategory(name=template.type, version=template.task_type_version)
        waits = _growing(_FIRST, _LONGEST)
        while not item.unwanted.is_set() and not self._closed:
            address = ""
            try:
                request = await self._request(work)
                address = await self._directory.find(category, work.connectors)
                item.creating = True
                await self._create(item, address, category, request)
                return None
            except NoAnswer as error:
                return failure("ConnectorFailed", f"{error.message}; there may be a job of it", whose=Failure.SYSTEM)
            except Unavailable as error:
                self._away(item, error)
            except Unlaunchable as error:
                return failure(error.reason, error.message)
            except (NotFound, Unimplemented) as error:
                if not address or not self._directory.forget(category):
                    return failure("UnsupportedTaskType", error.message, retryable=False)
            except FlyteUnifiedError as error:
                return failure("JobNotCreated", error.message)
            finally:
                item.creating = False
            await self._pause(item, next(waits))
        return Exit()

    async def _request(self, work: Job) -> connector_pb2.CreateTaskRequest:
        request = connector_pb2.CreateTaskRequest()
        request.CopyFrom(work.request)
        try:
            request.inputs.CopyFrom(common_pb2.Inputs.FromString(await self._store.get(work.input_uri)))
        except (NotFound, DecodeError) as error:
            raise InvalidArgument(f"{work.input_uri} holds no inputs: {error}") from error
        return request

    async def _create(
        self,
        item: _Item,
        address: str,
        category: connector_pb2.TaskCategory,
        request: connector_pb2.CreateTaskRequest,
    ) -> None:
        opened = connector_pb2.CreateTaskRequest()
        opened.CopyFrom(request)
        await self._open(opened.connection, item.id)
        meta = await self._client.create(address, opened)
        item.job = Kept(
            id=item.id,
            connector=address,
            request=connector_pb2.GetTaskRequest(
                resource_meta=meta,
                task_category=category,
                output_prefix=request.output_prefix,
                connection=request.connection,
            ),
            outputs=[entry.key for entry in request.template.interface.outputs.variables],
        )
        made = item.job
        known = await self._persist(item, lambda: self._database.write(partial(sql.add, made)), "a job can't be noted yet")
        if known is not None and known is not made:  # another leader was faster: there shall be one
            await self._delete(item, made, patience=_GIVING_UP)
            item.job = known
        item.work = None
        record = run_definition_pb2.ActionAttempt(logs_available=True)
        record.log_context.connector.endpoint = address
        happened(record, "JobCreated", f"{category.name} job created by connector {address}", at=self._clock.now())
        self._on_event(Progress(id=item.id, at=self._clock.now(), phase=Phase.QUEUED, details=record))

    # The job's life

    async def _followed(self, item: _Item, job: Kept) -> Exit:
        """Returns when the job has ended, or was ended."""
        resource = await self._over(item, job)
        if isinstance(resource, connector_pb2.Resource):
            ended = await self._judged(item, job, resource)
            if ended is not None:
                await self._logs.keep(job, patience=_LOG)
                return ended
        if self._closed:
            return Exit()
        await self._logs.keep(job, patience=_LAST_WORDS)
        item.leftover = not await self._delete(item, job, patience=_DELETING if resource is None else _GIVING_UP)
        return resource if isinstance(resource, Exit) else Exit()

    async def _over(self, item: _Item, job: Kept) -> connector_pb2.Resource | Exit | None:
        """What the connector says of a job that has ended; why it is given up; None for one that is not wanted any more."""
        waits, failures = _growing(min(_FIRST, self._poll), self._poll), 0
        while not item.unwanted.is_set() and not self._closed:
            try:
                request = connector_pb2.GetTaskRequest()
                request.CopyFrom(job.request)
                await self._open(request.connection, item.id)
                resource = await self._client.get(job.connector, request)
            except Unavailable as error:
                self._away(item, error)
            except (NotFound, Unimplemented) as error:
                return failure("UnsupportedTaskType", error.message, retryable=False)
            except FlyteUnifiedError as error:
                failures += 1
                if failures == _FAILURES:
                    return failure("ConnectorFailed", error.message, whose=Failure.SYSTEM)
            else:
                item.away, failures = False, 0
                self._tell(item, job, resource)
                if phase(resource) is None and resource.phase != execution_pb2.TaskExecution.UNDEFINED:
                    return resource
            await self._pause(item, next(waits))
        return None

    def _tell(self, item: _Item, job: Kept, resource: connector_pb2.Resource) -> None:
        """What is new of it."""
        at = self._clock.now()
        news = item.told.news(resource, at=at)
        now = phase(resource) or item.told.phase or Phase.QUEUED
        if now is item.told.phase and news is None:
            return
        if now is Phase.RUNNING and item.told.phase is not Phase.RUNNING:
            details = news or run_definition_pb2.ActionAttempt()
            details.log_context.connector.endpoint = job.connector
            self._on_event(Started(id=item.id, at=at, details=details))
        else:
            self._on_event(Progress(id=item.id, at=at, phase=now, details=news))
        item.told.phase = now

    async def _judged(self, item: _Item, job: Kept, resource: connector_pb2.Resource) -> Exit | None:
        """How it ended, its outputs stored. None when that is not wanted any more."""
        uri = f"{job.request.output_prefix}/outputs.pb"

        async def store() -> Exit | None:
            stored = await self._store.head(uri) is not None
            ended = ending(resource, job, stored=stored)
            if ended is not None and ended.fault is None and (resource.outputs.literals or not stored):
                await self._store.put(uri, common_pb2.Outputs(literals=resource.outputs.literals).SerializeToString())
            return ended

        return await self._persist(item, store, "outputs can't be stored yet")

    async def _delete(self, item: _Item, job: Kept, *, patience: float) -> bool:
        """Whether the connector has deleted it."""
        waits = _growing(_FIRST, _LONGEST)
        until = self._clock.monotonic() + patience
        while True:
            try:
                request = job.deletion()
                await self._open(request.connection, item.id)
                await self._client.delete(job.connector, request)
                return True
            except FlyteUnifiedError as error:
                wait = next(waits)
                if self._clock.monotonic() + wait > until or isinstance(error, NotFound | Unimplemented):
                    _log.warning("a job could not be deleted", work=str(item.id), error=error.message)
                    return False
                self._away(item, error)
            await asyncio.sleep(wait)

    # What they share

    async def _open(self, connection: security_pb2.Connection, work: WorkId) -> None:
        """Puts values in the places of secrets' names: just before a call, so that none is kept. Raises Unlaunchable."""
        for parameter, name in sorted(connection.secrets.items()):
            try:
                connection.secrets[parameter] = (await self._reveal(work.action.project, work.action.domain, name)).decode()
            except NotFound as error:
                raise Unlaunchable("SecretNotFound", error.message) from error
            except FailedPrecondition as error:
                raise Unlaunchable("SecretUnavailable", error.message) from error
            except UnicodeDecodeError as error:
                raise Unlaunchable("SecretUnavailable", f"secret {name!r} is no text, as connectors are given") from error

    async def _persist(self, item: _Item, step: Callable[[], Awaitable[_T]], trouble: str) -> _T | None:
        """``step`` done, as often as it takes; None when the attempt is over before."""
        waits = _growing(_FIRST, _LONGEST)
        while True:
            try:
                return await step()
            except FlyteUnifiedError as error:
                _log.warning(trouble, work=str(item.id), error=error.message)
            if item.unwanted.is_set():
                return None
            await self._pause(item, next(waits))

    def _away(self, item: _Item, error: FlyteUnifiedError) -> None:
        """Tells once that there is something to wait for."""
        if item.away:
            return
        item.away = True
        record = run_definition_pb2.ActionAttempt()
        at = self._clock.now()
        happened(record, "ConnectorAway", f"{error.message}; waiting for it", at=at, warning=True)
        self._on_event(Progress(id=item.id, at=at, phase=item.told.phase or Phase.QUEUED, details=record))

    async def _pause(self, item: _Item, wait: float) -> None:
        """Ends early for what is not wanted any more."""
        try:
            async with asyncio.timeout(wait * random.uniform(0.9, 1.1)):
                await item.unwanted.wait()
        except TimeoutError:
            return


def _growing(first: float, longest: float) -> Iterator[float]:
    wait = first
    while True:
        yield min(wait, longest)
        wait = min(wait * _GROWTH, longest)
