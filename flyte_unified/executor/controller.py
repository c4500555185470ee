"""The controller: one loop over the ledger's changes and the launcher's events, one worker per action that has something to do.

It holds live actions only, and nothing that is not in the ledger, in the keeper's files or in the attempt's own files: after a
restart it looks at those and goes on. Decisions are ``reconcile``'s; here is the I/O around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.actions.queue import WorkQueue
from flyte_unified.core.clock import SECOND, Clock, Micros, seconds
from flyte_unified.core.errors import FlyteUnifiedError, InvalidArgument, NotFound, NotLeader, PermissionDenied, Unavailable
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.executor import policy, reconcile, records
from flyte_unified.executor.caching import Caching
from flyte_unified.executor.judge import Judge, Options, Produced
from flyte_unified.executor.reconcile import Cached, Do, Observed, Record, Slot, Step, View, Wait
from flyte_unified.executor.sleep import Watch
from flyte_unified.executor.slots import Claim, Slots
from flyte_unified.launchers.api import Attempt, Ended, Event, Launcher, Progress, Started, Unlaunchable, WorkId
from flyte_unified.ledger.api import Action, ActionType, Beside, Ledger, Move, Retry
from flyte_unified.plugins.api import Pod, Process, Refusal, Resource, Runnable, TaskContext, Timer, Work
from flyte_unified.storage.api import DataStore

_log = structlog.get_logger(__name__)

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
"""Seconds between tries of a step that failed for a reason of our own."""


@dataclass(slots=True)
class _Live:
    """A live action and what is known of it beyond the ledger."""

    view: View
    children: int = 0
    claim: Claim | None = None
    light: bool = False
    """Its work is not known in full any more: see ``_lighten``."""
    worker: asyncio.Task[None] | None = None
    again: bool = False
    timer: asyncio.TimerHandle | None = None
    failures: int = 0

    def see(self, **changes: object) -> None:
        self.view = replace(self.view, **changes)  # type: ignore[arg-type]  # fields of View


class Controller:
    """``start``, then it runs until ``stop``. One for a server, or for a term of its leader; ``epoch`` fences its writes."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        queue: WorkQueue,
        store: DataStore,
        describe: Callable[[TaskContext], Work],
        launcher: Launcher,
        slots: Slots,
        caching: Caching,
        produced: Produced,
        clock: Clock,
        options: Options,
        epoch: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._queue = queue
        self._describe = describe
        self._launcher = launcher
        self._judge = Judge(ledger=ledger, store=store, caching=caching, produced=produced, clock=clock, options=options)
        self._slots = slots
        self._caching = caching
        self._clock = clock
        self._options = options
        self._lives: dict[ActionKey, _Live] = {}
        self._draining = False
        self._holding = False
        self._closed = False
        self._idle = asyncio.Event()
        self._overruled = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._dismissals: set[asyncio.Task[None]] = set()
        self._workers: set[asyncio.Task[None]] = set()
        """Those of actions that are retired, too"""
        self._found: list[Event] = []
        """What is heard before the live actions are known"""
        self._knowing = False
        self._watch = Watch(clock)
        self._up_since = Micros(0)

    @property
    def slots(self) -> Slots:
        return self._slots

    @property
    def live(self) -> int:
        """How many actions have not ended."""
        return len(self._lives)

    async def start(self) -> None:
        """Takes up every live action and every process that outlived an earlier server."""
        ready = asyncio.Event()
        self._up_since = self._clock.now()
        self._loop_task = asyncio.create_task(self._run(ready), name="executor")
        await ready.wait()
        if self._loop_task.done():
            await self._loop_task

    async def deposed(self) -> None:
        """Returns when another server has taken the lead. Raises what else ended the work."""
        if self._loop_task is None:
            return
        overruled = asyncio.create_task(self._overruled.wait(), name="overruled")
        try:
            await asyncio.wait((self._loop_task, overruled), return_when=asyncio.FIRST_COMPLETED)
        finally:
            overruled.cancel()
        if self._loop_task.done():
            await self._loop_task

    def hold_runs(self, hold: bool) -> None:
        """Lets no run begin, or lets them again; what has begun goes on, with all its children."""
        self._holding = hold
        up_since = self._clock.now() if not hold else self._up_since
        for live in self._lives.values():
            if not live.view.action.depth:
                live.see(held=hold, up_since=up_since)
                if hold and live.view.slot is Slot.WAITING:
                    self._slots.release(live.view.action.key)
                    live.see(slot=Slot.NONE)
                self._poke(live)

    async def running(self) -> AsyncGenerator[int]:
        """How many actions hold a slot: now, and after whatever may have changed that, until none does."""
        while live := self._slots.live:
            yield live
            self._idle.clear()
            await self._idle.wait()
        yield 0

    async def stop(self, *, grace: float) -> None:
        """Ends local processes as interruptions, which cost no retry: they go on at the next start."""
        self._draining = True
        for live in self._lives.values():
            live.see(draining=True)
        self._idle.clear()
        try:
            async with asyncio.timeout(grace):
                await self._launcher.stop(grace=max(0.1, grace - 1.0))
                while any(live.view.observed and isinstance(live.view.work, Process) for live in self._lives.values()):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            _log.warning("stopped before every task had ended", grace=grace)
        await self.close()

    async def close(self) -> None:
        """Stops deciding; processes are left to the launcher."""
        self._draining = True
        await self._launcher.close()  # first, as what it tells would set workers going again
        self._closed = True
        tasks = [*self._dismissals, *self._workers]
        if self._loop_task is not None:
            tasks.append(self._loop_task)
        for live in self._lives.values():
            self._disarm(live)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._queue.close()
        await self._caching.close()

    async def _run(self, ready: asyncio.Event) -> None:
        try:
            await self._take_up()
        finally:
            ready.set()
        while changed := await self._queue.next():
            for action in changed:
                self._observe(action)

    async def _take_up(self) -> None:
        """What an earlier server left: its processes first, as an action is judged by what is known of its process."""
        self._found.extend(await self._launcher.start(self._on_event))
        for action in sorted(await self._queue.start(), key=lambda action: action.depth):
            self._add(action)
        self._knowing = True
        latest_first = sorted(self._found, key=lambda event: event.id.attempt, reverse=True)
        strays = [event for event in latest_first if self._see(event) is None]
        for live in list(self._lives.values()):
            if live.view.running:
                await self._prepare(live)
                self._lighten(live)
            if live.view.running and live.claim is not None:  # it may have ended meanwhile
                self._slots.hold(live.view.action.key, live.claim)
                self._hold(live)
        for live in list(self._lives.values()):
            self._poke(live)
        for event in strays:
            self._dismiss(event)

    # What happens

    def _observe(self, action: Action) -> None:
        live = self._lives.get(action.key)
        if live is None:
            if action.terminal:
                return
            live = self._add(action)
        else:
            before = live.view.action
            if before.version >= action.version:
                return
            if before.attempt != action.attempt:
                live.see(work=None)
            live.see(action=action)
            if action.terminal and not before.terminal:
                self._count_child(action, -1)
        self._poke(live)

    def _add(self, action: Action) -> _Live:
        timeout = 0.0
        if action.action_type is ActionType.CONDITION and action.spec is not None:
            timeout = seconds(run_definition_pb2.ConditionAction.FromString(action.spec).timeout)
        view = View(
            action=action,
            condition_timeout=timeout,
            up_since=self._up_since,
            draining=self._draining,
            held=self._holding and not action.depth,
            sleeps=self._watch.sleeps,
        )
        live = self._lives[action.key] = _Live(view)
        self._count_child(action, +1)
        return live

    def _count_child(self, child: Action, step: int) -> None:
        parent = self._lives.get(child.key.sibling(child.parent)) if child.parent is not None else None
        if parent is None:
            return
        parent.children += step
        if parent.children == 0:
            self._slots.resume(parent.view.action.key)
        elif parent.children == step:
            self._slots.suspend(parent.view.action.key)
            self._admit()

    def _on_event(self, event: Event) -> None:
        if not self._knowing:
            self._found.append(event)
        elif (live := self._see(event)) is None:
            self._dismiss(event)
        else:
            self._poke(live)

    def _see(self, event: Event) -> _Live | None:
        """The action that this is news of; None when it is of an attempt that is over."""
        live = self._lives.get(event.id.action)
        if live is None:
            return None
        known = live.view.observed
        if known is None or known.attempt < event.id.attempt:
            known = Observed(attempt=event.id.attempt, launched_at=event.at)
        elif known.attempt > event.id.attempt:
            return None
        details = event.details
        if isinstance(event, Progress):
            known = replace(known, phase=event.phase, phase_at=event.at)
        elif isinstance(event, Started):
            link = self._options.log_link(event.id.action, event.id.attempt)
            details = records.begin(event, log=link, links=live.view.work.links if isinstance(live.view.work, Runnable) else ())
            known = replace(known, started_at=event.at)
        else:
            known = replace(known, ended_at=event.at, exit=event.exit)
        if (details := records.news(live.view.action, details)) is not None:
            known = replace(known, details=records.joined(known.details, details))
        live.see(observed=known)
        return live

    def _dismiss(self, event: Event) -> None:
        """A process that nobody waits for: one that runs is ended, what one that has ended left behind is removed."""
        kill = self._launcher.kill
        work = self._tidy(event.id) if isinstance(event, Ended) else kill(event.id, grace=self._options.kill_grace)
        task = asyncio.create_task(work, name=f"dismiss {event.id}")
        self._dismissals.add(task)
        task.add_done_callback(self._dismissals.discard)

    def _poke(self, live: _Live) -> None:
        if self._closed:
            return
        if live.worker is not None:
            live.again = True
            return
        self._disarm(live)
        live.worker = asyncio.create_task(self._advance(live), name=f"reconcile {live.view.action.key}")
        self._workers.add(live.worker)
        live.worker.add_done_callback(self._workers.discard)

    # One action

    async def _advance(self, live: _Live) -> None:
        try:
            while True:
                live.again = False
                step = reconcile.next_step(live.view, self._now(live))
                if isinstance(step, Wait):
                    if live.again:
                        continue
                    self._arm(live, step.until)
                    return
                if step is Do.RETIRE:
                    await self._retire(live)
                    return
                await self._do(live, step)
                live.failures = 0
        except NotLeader:
            self._overruled.set()
        except Exception:
            live.failures += 1
            wait = min(_FIRST_WAIT * 2.0 ** min(live.failures, 16), _LONGEST_WAIT)
            _log.exception("a step failed; it will be tried again", action=str(live.view.action.key), seconds=wait)
            live.timer = asyncio.get_running_loop().call_later(wait, self._poke, live)
        finally:
            live.worker = None
            self._idle.set()

    def _now(self, live: _Live) -> Micros:
        now = self._watch.now()
        if live.view.sleeps is not self._watch.sleeps:
            live.see(sleeps=self._watch.sleeps)
        return now

    def _arm(self, live: _Live, until: Micros | None) -> None:
        if until is not None:
            wait = max(0.0, (until - self._clock.now()) / SECOND)
            live.timer = asyncio.get_running_loop().call_later(wait, self._poke, live)

    def _disarm(self, live: _Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None

    async def _do(self, live: _Live, step: Step) -> None:
        if isinstance(step, Record):
            told = live.view.observed.details if live.view.observed is not None else None
            await self._record(live, *step.steps)
            if (observed := live.view.observed) is not None and observed.details is told:
                live.see(observed=replace(observed, details=None))
        elif step is Do.PREPARE:
            await self._prepare(live)
        elif step is Do.ASK_CACHE:
            await self._ask_cache(live)
        elif step is Do.CLAIM_SLOT and live.claim is not None:
            self._claim(live, live.claim)
        elif step is Do.START:
            await self._start(live)
        elif step is Do.JUDGE:
            steps, beside = await self._judge.verdict(live.view)
            await self._record(live, *steps, beside=beside)
        elif step is Do.KILL:
            await self._kill(live)
        elif step is Do.FORGET:
            await self._forget(live)

    async def _record(self, live: _Live, *steps: Move | Retry, beside: Beside | None = None) -> None:
        key = live.view.action.key
        changed = await self._ledger.move(key, *steps, epoch=self._epoch, known=live.view.action, beside=beside)
        for action in changed:
            self._observe(action)
        if not changed:  # somebody else was faster: look again
            self._observe(await self._ledger.action(key))

    async def _prepare(self, live: _Live) -> None:
        action = live.view.action
        try:
            context = await self._judge.context(action)
            work = self._describe(context)
            timer = work.seconds(await self._judge.inputs(action)) if isinstance(work, Timer) else None
            limits = policy.limits(context.spec.task_template.metadata)
            claim = policy.claim(context, work)
        except (InvalidArgument, NotFound, PermissionDenied) as error:
            live.see(work=Refusal("BadTaskSpecification", error.message))
            return
        live.see(work=work, limits=limits, timer_seconds=timer)
        live.claim, live.light = claim, False
        if not self._slots.fits(claim):
            live.see(work=Refusal("ResourcesUnavailable", f"the task asks for {claim.gpu} GPU(s), more than this machine has"))

    async def _ask_cache(self, live: _Live) -> None:
        action = live.view.action
        if not action.cache_key:
            live.see(cached=Cached.OFF)
            return
        answer = await self._caching.ask(action, woken=lambda: self._reservation_freed(live))
        if isinstance(answer, Move):
            await self._record(live, answer)
        else:
            live.see(cached=answer)
            if answer is Cached.RESERVED and action.phase is Phase.QUEUED:
                await self._record(live, Move(to=Phase.WAITING_FOR_RESOURCES, attempt=action.attempt))

    def _reservation_freed(self, live: _Live) -> None:
        live.see(cached=Cached.UNASKED)
        self._poke(live)

    def _claim(self, live: _Live, claim: Claim) -> None:
        live.see(slot=Slot.WAITING)
        self._slots.claim(live.view.action.key, claim)
        self._admit()
        if live.view.slot is Slot.WAITING:
            self._lighten(live)

    def _admit(self) -> None:
        while admitted := self._slots.admit():
            for key in admitted:
                self._hold(self._lives[key])
                self._poke(self._lives[key])
        if (deepest := self._slots.refuse()) is not None and (live := self._lives.get(deepest)) is not None:
            limit = self._slots.capacity.limit
            message = f"{limit} task processes wait for their children, and execution.process_limit allows no more"
            live.see(work=Refusal("ProcessLimit", message))
            self._slots.release(deepest)
            self._poke(live)

    def _hold(self, live: _Live) -> None:
        """It has its slot; one that begins again while children of it live leaves it to them at once."""
        live.see(slot=Slot.HELD)
        if live.light and live.view.observed is None:
            live.see(work=None)
        if live.children:
            self._slots.suspend(live.view.action.key)

    async def _start(self, live: _Live) -> None:
        action, work = live.view.action, live.view.work
        if not isinstance(work, Runnable):
            raise TypeError(f"{action.key} has nothing to start")
        live.see(observed=Observed(attempt=action.attempt, launched_at=self._clock.now()))
        try:
            await self._launcher.launch(
                Attempt(id=WorkId(action.key, action.attempt), work=work, gpus=self._slots.gpus(action.key))
            )
        except Exception as error:
            live.see(observed=None)
            if not isinstance(error, FlyteUnifiedError) or isinstance(error, Unavailable):
                raise
            live.see(work=Refusal(error.reason if isinstance(error, Unlaunchable) else "LaunchFailed", error.message))
            return
        self._lighten(live)

    def _lighten(self, live: _Live) -> None:
        """What waits or was launched need not be known in full: of ten thousand pods that would be most of the memory."""
        if isinstance(live.view.work, Pod | Resource):
            live.see(work=live.view.work.launched())
            live.light = True

    async def _kill(self, live: _Live) -> None:
        observed = live.view.observed
        if observed is not None:
            live.see(observed=replace(observed, killing=True))
            work = WorkId(live.view.action.key, observed.attempt)
            await self._launcher.kill(work, grace=self._options.kill_grace)

    async def _forget(self, live: _Live) -> None:
        observed, key = live.view.observed, live.view.action.key
        if observed is not None:
            await self._launcher.forget(WorkId(key, observed.attempt))
        live.see(observed=None, slot=Slot.NONE)
        self._slots.release(key)
        self._admit()

    async def _retire(self, live: _Live) -> None:
        key = live.view.action.key
        self._lives.pop(key, None)
        self._slots.release(key)
        self._admit()
        await self._caching.drop(key)
        if live.view.action.action_type is ActionType.TASK and not isinstance(live.view.work, Timer):
            await self._clear(live.view.action)

    async def _tidy(self, work: WorkId) -> None:
        await self._launcher.forget(work)
        with suppress(NotFound):
            action = await self._ledger.action(work.action)
            if action.terminal:
                await self._clear(action)

    async def _clear(self, action: Action) -> None:
        await self._launcher.clear(action.key, attempts=action.attempt)
