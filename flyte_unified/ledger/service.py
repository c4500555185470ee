"""The ledger: every write of runs, actions and attempts, and who is told of it.

Accepted means durable: a call here returns after the commit, and watchers hear of a change after the commit that made it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flyteidl2.task import run_pb2, task_definition_pb2

from flyte_unified.core.clock import Clock
from flyte_unified.core.errors import FlyteUnifiedError, NotFound
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Database, Notice, Work
from flyte_unified.ledger import store
from flyte_unified.ledger.births import EncodedSpec
from flyte_unified.ledger.changes import Changes, Children, OneAction, Scope
from flyte_unified.ledger.model import Action, Details, Move, NewRun, Report, Retry, Run

T = TypeVar("T")

_SPECS = 512
_RUNS = 512


@dataclass(frozen=True, slots=True)
class Beside:
    """What another room writes in the transaction of a success: it is there if the success is, and once.

    ``committed`` hears of the work's result after the commit; other replicas do too.
    """

    work: Callable[[], Work[list[Notice]]]
    committed: Callable[[list[Notice]], None]


class Productions(Protocol):
    """What is written beside the successes that other executors tell of, as beside those of this one."""

    async def of(self, action: Action, steps: Sequence[Move | Retry]) -> tuple[Sequence[Move | Retry], Beside | None]:
        """``steps``, which may end ``action``, with a note of what can't be written; and what is. Raises Unavailable."""


class Ledger:
    """One for a server. ``changes`` tells what was committed, in the order of commits."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._specs: OrderedDict[str, task_definition_pb2.TaskSpec] = OrderedDict()
        self._runs: OrderedDict[RunKey, tuple[Run, run_pb2.RunSpec]] = OrderedDict()
        self.changes = Changes()

    async def create_run(self, new: NewRun) -> tuple[Run, Action, bool]:
        """The run, its root, and whether it is new; see ``store.add_run`` for what it raises."""
        digest = new.root.spec_digest or ""
        run_spec = run_pb2.RunSpec.FromString(new.run.run_spec)
        spec = self._specs.get(digest) or task_definition_pb2.TaskSpec.FromString(new.spec)

        def then(created: tuple[Run, Action, bool]) -> None:
            run, root, added = created
            if added:  # what is told of it next asks for both
                _remember(self._runs, run.key, (run, run_spec), bound=_RUNS)
                _remember(self._specs, digest, spec, bound=_SPECS)
                self.changes.publish([root])

        return await self._database.write(
            lambda: store.add_run(new),
            then=then,
            changed=lambda created: [created[1].key] if created[2] else [],
        )

    async def enqueue(
        self, new: Action, spec: EncodedSpec | None = None, *, beside: Callable[[], Work[None]] | None = None
    ) -> tuple[Action, bool]:
        """Stores a child action; what exists already is answered as it is, with False. See ``store.add_action``."""
        raw, known = (spec.raw, spec.digest in self._specs) if spec is not None else (None, False)
        added = await self._commit(
            lambda: store.add_action(new, raw, beside, known=known),
            lambda added: [added[0]] if added[1] else [],
            single=beside is None,
        )
        if spec is not None:
            _remember(self._specs, spec.digest, spec.message, bound=_SPECS)
        return added

    async def move(
        self,
        key: ActionKey,
        *steps: Move | Retry,
        epoch: int | None = None,
        known: Action | None = None,
        beside: Beside | None = None,
    ) -> list[Action]:
        """Applies the steps that are legal, in one transaction; what changed, the action itself first, then what it took along.

        An empty list means that no step was legal: the action is past them. ``known``, its row as the caller last saw it,
        spares a look; ``epoch`` is that of the leader who decides (see ``take_lead``); ``beside`` is written where the action
        succeeds by this. Raises NotFound; NotLeader when another leads by now, and then has written nothing.
        """
        now = self._clock.now()

        def work() -> Work[list[Action]]:
            return store.move(key, steps, now=now, epoch=epoch, known=known)

        if beside is None:
            return await self._commit(work, lambda changed: changed)
        return await self._commit_beside(work, beside)

    async def report(self, reports: Sequence[Report]) -> list[FlyteUnifiedError | None]:
        """Keeps what a client says of its own actions, in one transaction; what was wrong with each report."""
        _, wrong = await self._commit(lambda: store.report(reports), lambda result: result[0], single=False)
        return wrong

    async def abort_run(self, key: RunKey, *, reason: str, principal: str = "") -> None:
        """Aborts every live action of a run."""
        now = self._clock.now()
        await self._commit(lambda: store.abort_run(key, now=now, reason=reason, principal=principal), list, single=False)

    async def take_lead(self, name: str, epoch: int, holder: str) -> None:
        """From now on no move of an earlier epoch is written, where ``name`` is EXECUTOR.

        ``epoch`` is the lease's (``leaseTransitions``). Raises NotLeader for one that is behind, or another holder's.
        """
        now = self._clock.now()
        await self._database.write(lambda: store.take_lead(name, epoch, holder, now=now))

    async def last_epoch(self, name: str) -> int:
        """The greatest epoch in which anybody led; 0 before the first. A lease that was deleted has to go on from there."""
        return await self.read(lambda: store.last_epoch(name))

    async def put_state(self, key: ActionKey, state: str) -> bool:
        """Keeps a client's own note on an action; False when there is no such action."""
        now = self._clock.now()
        return await self._database.write(lambda: store.save_state(key, state, now=now))

    async def action(self, key: ActionKey) -> Action:
        """Raises NotFound."""
        found = await self.read(lambda: store.get_action(key))
        if found is None:
            raise NotFound(f"there is no action {key}")
        return found

    async def details(self, key: ActionKey) -> Details:
        """The action with all its attempts. Raises NotFound."""
        return await self.of(await self.action(key))

    async def of(self, action: Action) -> Details:
        """The details of an action whose row is at hand."""
        before = () if action.attempt == 1 else await self.read(lambda: store.get_attempts(action.key))
        return Details(action, (*before, action.latest()))

    async def family(self, key: ActionKey) -> list[Action]:
        """The action itself, where it exists, and its direct children, in the order of their creation."""
        return await self.read(lambda: store.get_children(key))

    async def live(self) -> list[Action]:
        """Every action that is carried out here and has not ended."""
        return await self.read(store.get_live)

    async def run(self, key: RunKey) -> tuple[Run, run_pb2.RunSpec]:
        """Raises NotFound."""
        known = self._runs.get(key)
        if known is None:
            run = await self.read(lambda: store.get_run(key))
            if run is None:
                raise NotFound(f"there is no run {key}")
            known = run, run_pb2.RunSpec.FromString(run.run_spec)
        _remember(self._runs, key, known, bound=_RUNS)
        return known

    async def spec(self, digest: str) -> task_definition_pb2.TaskSpec:
        """A stored task spec; shared by its readers, so never to be changed. Raises NotFound."""
        known = self._specs.get(digest)
        if known is None:
            raw = await self.read(lambda: store.get_spec(digest))
            if raw is None:
                raise NotFound(f"there is no task spec {digest}")
            known = task_definition_pb2.TaskSpec.FromString(raw)
        _remember(self._specs, digest, known, bound=_SPECS)
        return known

    async def read(self, work: Callable[[], Work[T]]) -> T:
        """Runs a query of another room's store on a snapshot of its own."""
        return await self._database.read(work)

    async def watch_family(self, parent: ActionKey) -> AsyncGenerator[tuple[list[Action], bool]]:
        """The action and its children as they are, with True; then changes of them, until the server stops."""
        async with aclosing(self.watch(lambda: self.family(parent), Children(parent))) as updates:
            async for update in updates:
                yield update

    async def watch_action(self, key: ActionKey) -> AsyncGenerator[Action]:
        """The action as it is, then its changes, the last one terminal. Raises NotFound."""

        async def one() -> list[Action]:
            return [await self.action(key)]

        async with aclosing(self.watch(one, OneAction(key))) as updates:
            async for changed, _ in updates:
                for action in changed:
                    yield action
                    if action.terminal:
                        return

    async def watch(
        self, snapshot: Callable[[], Awaitable[list[Action]]], scope: Scope
    ) -> AsyncGenerator[tuple[list[Action], bool]]:
        """What ``snapshot`` reads, with True; then the changes of ``scope`` that came after it, until the server stops."""
        with self.changes.subscribe(scope) as subscription:
            first = await snapshot()
            seen = {action.key: action.version for action in first}
            yield first, True
            while changed := await subscription.next():
                # A snapshot may hold a commit that is announced only afterwards.
                if fresh := [action for action in changed if seen.pop(action.key, 0) < action.version]:
                    yield fresh, False

    async def _commit(self, work: Callable[[], Work[T]], changed: Callable[[T], list[Action]], *, single: bool = True) -> T:
        """Writes, and tells watchers here and on other replicas what changed."""
        return await self._database.write(
            work,
            then=lambda result: self.changes.publish(changed(result)),
            changed=lambda result: [action.key for action in changed(result)],
            single=single,
        )

    async def _commit_beside(self, moved: Callable[[], Work[list[Action]]], beside: Beside) -> list[Action]:
        def work() -> Work[tuple[list[Action], list[Notice]]]:
            changed = yield from moved()
            succeeded = bool(changed) and changed[0].phase is Phase.SUCCEEDED
            return changed, (yield from beside.work()) if succeeded else []

        def then(result: tuple[list[Action], list[Notice]]) -> None:
            self.changes.publish(result[0])
            beside.committed(result[1])

        changed, _ = await self._database.write(
            work, then=then, changed=lambda result: [*(action.key for action in result[0]), *result[1]]
        )
        return changed


K = TypeVar("K")
V = TypeVar("V")


def _remember(known: OrderedDict[K, V], key: K, value: V, *, bound: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > bound:
        known.popitem(last=False)
