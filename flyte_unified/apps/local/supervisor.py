"""Keeps one app as it is wanted: one process, or none while nobody asks.

One loop decides (``decide``) and acts; everything else only says what happened and wakes it. Visitors wait here for a process
that is ready, so that a start, a replacement and a crash are a delay to them and no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from flyte_unified.apps.local.decide import Do, Process, Step, View, Why, decide
from flyte_unified.apps.model import App, AppKey, Phase, Substate, Told
from flyte_unified.core.clock import seconds
from flyte_unified.core.errors import FlyteUnifiedError, NotFound, Unavailable
from flyte_unified.core.sites import Upstream

_log = structlog.get_logger(__name__)

_STEADY = 60.0
"""Seconds of service after which a crash is the first one again."""
_HOPELESS = 3
"""Failures in a row after which an app has failed. It is tried further."""
_DRAIN = 30.0
"""Seconds that requests under way have when their process is replaced or stopped."""
_CROWD = 1000
"""Requests that may be under way, or wait, at one time."""
_LONGEST_WORDS = 500


class Replica(NamedTuple):
    """One process of an app, by all that has to be known of it after the server's death: what it is called by its keeper."""

    key: AppKey
    deployment: str
    """How its digest begins."""
    surroundings: str
    """A digest of what it was told of the server."""
    port: int
    name: str


class End(NamedTuple):
    """How a process ended."""

    words: str
    out_of_memory: bool = False


class Machine(Protocol):
    """What a supervisor needs."""

    async def launch(self, app: App) -> Replica:
        """Starts a process. Raises FlyteUnifiedError."""

    async def listening(self, replica: Replica) -> Upstream:
        """Returns when it listens."""

    async def end(self, replica: Replica) -> None:
        """Its end is told by ``Supervisor.ended``."""

    async def clear(self, replica: Replica) -> None:
        """Frees what it had, but its log."""

    async def retire(self, app: App) -> None:
        """It is deleted, and nothing of it runs: frees what is left of it."""

    async def last_words(self, replica: Replica) -> str:
        """What may be why it ended."""

    async def say(self, app: App, told: Told) -> None:
        """Has it known how the app is."""


@dataclass(slots=True)
class _Running:
    replica: Replica
    since: float
    upstream: Upstream | None = None
    ready_at: float = 0.0
    why: Why | None = None
    """What its end was asked for with."""
    end: End | None = None
    probe: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Seconds, for apps that say nothing else."""

    idle: float
    start: float
    wake: float
    request: float
    backoff: float
    """Before an app that ended is started again; it doubles each time."""
    backoff_max: float


class Supervisor:
    """One app's. ``retired`` is set once it is deleted and nothing of it runs."""

    def __init__(self, app: App, *, machine: Machine, rules: Rules) -> None:
        self.app = app
        self._machine = machine
        self._rules = rules
        self._deleted = False
        self._running: _Running | None = None
        self._asleep = app.substate == Substate.SCALED_TO_ZERO
        self._visitors = self._inside = self._failures = 0
        self._quiet_since = self._retry_at = self._drain_until = 0.0
        self._trouble = ""
        self._said: tuple[str, Told] | None = None
        self._woken = asyncio.Event()
        self._turn = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.retired = asyncio.Event()

    @property
    def replica(self) -> Replica | None:
        return self._running.replica if self._running is not None else None

    @property
    def active(self) -> bool:
        """Whether there is a process, or one is about to be."""
        return self._running is not None or (self._wanted and not self._asleep)

    @property
    def turn(self) -> asyncio.Event:
        """Is set when the next thing happens."""
        return self._turn

    # What happens

    def begin(self) -> None:
        self._loop = asyncio.create_task(self._run(), name=f"app {self.app.key}")

    async def close(self) -> None:
        """Leaves what runs as it is."""
        probe = self._running.probe if self._running is not None else None
        tasks = [task for task in (self._loop, probe) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def adopt(self, replica: Replica, *, surroundings: str) -> bool:
        """Takes over a process that runs already. False where it is not what is wanted."""
        if self._running is not None or not self._is_wanted(replica) or replica.surroundings != surroundings:
            return False
        self._asleep = False
        self._runs(replica)
        return True

    def want(self, app: App) -> None:
        """From now on it shall be like this."""
        asked = app.deployment != self.app.deployment or app.phase == Phase.DEPLOYMENT_STATUS_PENDING
        if asked or app.wanted != self.app.wanted or self._deleted:
            self._asleep = self._deleted = False
            self._failures = 0
            self._retry_at = 0.0
            self._trouble = ""
            self._drain_until = self._now() + _DRAIN
        self.app = app
        self._wake()

    def delete(self) -> None:
        self._deleted = True
        self._wake()

    def ended(self, replica: Replica, end: End) -> None:
        """A process is gone, with all that it started."""
        if self._running is not None and self._running.replica == replica:
            self._running.end = end
            self._wake()

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Upstream]:
        """One request: see ``core.sites.Site``."""
        if self._visitors >= _CROWD:
            raise Unavailable(f"app {self.app.key} has {_CROWD} requests under way")
        self._visitors += 1
        self._wake()
        try:
            upstream = await self._ready()
            self._inside += 1
            try:
                yield upstream
            finally:
                self._inside -= 1
        finally:
            self._visitors -= 1
            self._quiet_since = self._now()
            self._wake()

    async def _ready(self) -> Upstream:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rules.wake):
                while True:
                    if (upstream := self._upstream) is not None:
                        return upstream
                    self._refuse()
                    await self._turn.wait()
        raise Unavailable(f"app {self.app.key} is not ready yet: {self._trouble or 'it is starting'}; ask again")

    def _refuse(self) -> None:
        key = self.app.key
        if self._deleted:
            raise NotFound(f"there is no app {key}")
        if not self.app.wanted:
            raise Unavailable(f"app {key} is stopped; `flyte update app {key.name} --activate` starts it")
        if self._failures >= _HOPELESS:
            raise Unavailable(f"app {key} fails: {self._trouble}")

    @property
    def _upstream(self) -> Upstream | None:
        """Of a process that is ready, and what is wanted."""
        running = self._running
        if running is None or running.why is not None or running.end is not None or not self._is_wanted(running.replica):
            return None
        return running.upstream

    def _is_wanted(self, replica: Replica) -> bool:
        return self._wanted and self.app.deployment.startswith(replica.deployment)

    @property
    def _wanted(self) -> bool:
        return self.app.wanted and not self._deleted

    # The loop

    async def _run(self) -> None:
        while not self.retired.is_set():
            self._woken.clear()
            try:
                if (running := self._running) is not None and running.end is not None:
                    await self._over(running, running.end)
                    self._wake()
                step = decide(self._view(), self._now())
                busy = await self._act(step)
            except Exception:
                _log.exception("an app could not be seen to", app=str(self.app.key))
                busy, step = False, Step(Do.WAIT, self._now() + self._rules.backoff_max)
            if busy or self.retired.is_set():
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(step.until):
                    await self._woken.wait()

    def _view(self) -> View:
        spec, running = self.app.spec, self._running
        scaling = spec.autoscaling
        return View(
            wanted=self._wanted,
            lasting=scaling.HasField("replicas") and scaling.replicas.min > 0,
            idle=seconds(scaling.scaledown_period) if scaling.HasField("scaledown_period") else self._rules.idle,
            patience=self._rules.start,
            asleep=self._asleep,
            visitors=self._visitors,
            inside=self._inside,
            quiet_since=self._quiet_since,
            retry_at=self._retry_at,
            drain_until=self._drain_until,
            process=self._process(running) if running is not None else None,
        )

    def _process(self, running: _Running) -> Process:
        return Process(
            current=self._is_wanted(running.replica),
            since=running.since,
            ready=running.upstream is not None,
            ending=running.why is not None,
        )

    async def _act(self, step: Step) -> bool:
        """Whether something was done, so that there may be something else to do."""
        running = self._running
        match step.do:
            case Do.START:
                await self._start()
                return True
            case Do.END if running is not None:
                running.why = step.why
                await self._machine.end(running.replica)
                return True
            case Do.REST if step.why is Why.UNWANTED:
                if self._deleted:
                    self.retired.set()
                    await self._machine.retire(self.app)
                else:
                    await self._say(Told(phase=Phase.DEPLOYMENT_STATUS_STOPPED))
            case Do.REST if step.why is Why.IDLE:
                await self._say(Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.SCALED_TO_ZERO))
        if self._upstream is not None:
            await self._say(Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.RUNNING, replicas=1))
        return False

    async def _start(self) -> None:
        if self._asleep:
            await self._say(Told(phase=Phase.DEPLOYMENT_STATUS_ACTIVE, substate=Substate.SCALING_FROM_ZERO))
        elif not self._failures:
            await self._say(Told(phase=Phase.DEPLOYMENT_STATUS_DEPLOYING, substate=Substate.INITIALIZING))
        app = self.app
        try:
            replica = await self._machine.launch(app)
        except FlyteUnifiedError as error:
            await self._failed(End(error.message))
        except OSError as error:
            _log.warning("an app could not be started", app=str(app.key), error=str(error))
            await self._failed(End(f"this machine could not start it: {error}"))
        else:
            self._runs(replica)

    def _runs(self, replica: Replica) -> None:
        self._running = running = _Running(replica, since=self._now())
        running.probe = asyncio.create_task(self._probe(running), name=f"app {self.app.key} listens")
        self._wake()

    async def _probe(self, running: _Running) -> None:
        running.upstream = await self._machine.listening(running.replica)
        running.ready_at = self._quiet_since = self._now()
        self._asleep = False
        self._wake()

    async def _over(self, running: _Running, end: End) -> None:
        if running.probe is not None:
            running.probe.cancel()
            await asyncio.wait((running.probe,))
        self._running = None
        words = await self._machine.last_words(running.replica) if running.why in (None, Why.LATE) else ""
        await self._machine.clear(running.replica)
        if not self._is_wanted(running.replica):
            return
        match running.why:
            case Why.IDLE:
                self._asleep = True
            case Why.LATE:
                within = f"it did not listen on port {running.replica.port} within {self._rules.start:g} s"
                await self._failed(End(f"{within}: {words}" if words else within))
            case None:
                if running.upstream is not None and self._now() - running.ready_at >= _STEADY:
                    self._failures = 0
                await self._failed(end._replace(words=f"{end.words}: {words}" if words else end.words))

    async def _failed(self, end: End) -> None:
        self._failures += 1
        self._asleep = False  # or nobody would try again
        wait = min(self._rules.backoff * 2.0 ** min(self._failures - 1, 32), self._rules.backoff_max)
        self._retry_at = self._now() + wait
        self._trouble = end.words[:_LONGEST_WORDS]
        self._wake()
        if self._failures < _HOPELESS and not end.out_of_memory:
            told = Told(phase=Phase.DEPLOYMENT_STATUS_DEPLOYING, substate=Substate.INITIALIZING)
        else:
            substate = Substate.OOM_KILLED if end.out_of_memory else Substate.CRASH_LOOP
            told = Told(phase=Phase.DEPLOYMENT_STATUS_FAILED, substate=substate)
        message = f"{self._trouble}; started again in {wait:g} s"
        await self._say(Told(phase=told.phase, substate=told.substate, message=message))

    async def _say(self, told: Told) -> None:
        """Once. A database that is away hears it with the next word."""
        said = self.app.deployment, told
        if said == self._said:
            return
        try:
            await self._machine.say(self.app, told)
        except FlyteUnifiedError as error:
            _log.warning("an app's status could not be stored", app=str(self.app.key), error=error.message)
        else:
            self._said = said

    def _wake(self) -> None:
        self._woken.set()
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
