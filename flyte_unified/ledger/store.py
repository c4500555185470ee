"""The ledger's SQL, as pieces of work (see ``db.api``). Nothing here waits or decides; ``moves`` says what a move does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flyteidl2.workflow import run_definition_pb2
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Insert,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.types import TypeEngine

from flyte_unified.core.clock import Micros
from flyte_unified.core.errors import Aborted, AlreadyExists, FailedPrecondition, FlyteUnifiedError, NotFound, NotLeader
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.db.api import Work
from flyte_unified.db.each import Each, Given
from flyte_unified.db.tables import actions, attempts, leadership, run_labels, runs, task_specs
from flyte_unified.db.upsert import insert_new, insert_or_update, new
from flyte_unified.ledger import moves, rows
from flyte_unified.ledger.model import Action, ActionType, Move, NewRun, Report, Retry, Run

EXECUTOR = "executor"
"""The name under which ``leadership`` notes who carries actions to their end: its epoch fences moves."""

_IN_RUN = (
    (actions.c.project == bindparam("_project"))
    & (actions.c.domain == bindparam("_domain"))
    & (actions.c.run == bindparam("_run"))
)
_ONE = _IN_RUN & (actions.c.name == bindparam("_name"))
_CHILDREN = select(actions).where(_IN_RUN, actions.c.parent == bindparam("_parent")).order_by(actions.c.created_at)
_LIVE = select(actions).where(actions.c.ended_at.is_(None), actions.c.reported.is_(None)).order_by(actions.c.created_at)
_LIVE_IN_RUN = select(actions).where(_IN_RUN, actions.c.ended_at.is_(None))
_HOLD = select(actions).where(_ONE).with_for_update(read=True)
_ADD_ROOT = insert_new(actions)
_ADD_REPORTED = _ADD_ROOT.returning(actions.c.name)

_PLACE = ("project", "domain", "run", "name")
_RUN_PLACE = _PLACE[:3]
_MOVED = (
    "phase",
    "version",
    "attempt",
    "system_failures",
    "interruptions",
    "cache_status",
    "updated_at",
    "started_at",
    "ended_at",
    "not_before",
    "output_uri",
    "error",
    "reason",
    "principal",
    "value",
    "record",
    "reported",
    "outcome",
)


def _types(*names: str, prefix: str = "") -> dict[str, TypeEngine[Any]]:
    return {prefix + name: actions.c[name].type for name in names}


def _at(given: Given, *names: str, of: Table = actions) -> ColumnElement[bool]:
    return and_(*(of.c[name] == given["_" + name] for name in names))


def _get(given: Given) -> Select[Any]:
    return select(actions).where(_at(given, *_PLACE))


def _live_children(given: Given) -> Select[Any]:
    return select(actions).where(_at(given, *_RUN_PLACE, "parent"), actions.c.ended_at.is_(None))


def _add_child(given: Given, *demands: ColumnElement[bool]) -> Insert:
    """Below a live parent, and only there.

    What ends the parent waits for this commit and then sees the child; what comes after the end finds no live parent, also
    when it began before (SQLite has one writer).
    """
    above = actions.alias("above")
    values = [above.c.depth + 1 if name == "depth" else given["_" + name] for name in rows.COLUMNS]
    place = and_(*(above.c[name] == given["_" + name] for name in _RUN_PLACE), above.c.name == given["_parent"])
    ours = above.c.ended_at.is_(None) & above.c.reported.is_(None)
    live = select(*values).where(place, ours, *demands).with_for_update(read=True, of=above)
    return insert_new(actions).from_select(rows.COLUMNS, live).returning(*(actions.c[name] for name in _PLACE), actions.c.depth)


def _add_known_child(given: Given) -> Insert:
    """Where, besides, its task's spec is stored, if it has one: a failover may have taken what was."""
    digest = given["_spec_digest"]
    return _add_child(given, digest.is_(None) | exists(select(1).where(task_specs.c.digest == digest)))


def _update(given: Given) -> Update:
    """Where nobody else was faster, and the epoch, if there is one, is the leader's.

    Who takes the lead waits for this commit; who had it finds another epoch, also when it asked before.
    """
    led = select(leadership.c.epoch).where(leadership.c.name == EXECUTOR, leadership.c.epoch == given["_epoch"])
    fence = given["_epoch"].is_(None) | exists(led.with_for_update(read=True, of=leadership))
    return (
        update(actions)
        .where(_at(given, *_PLACE, "version"), fence)
        .values({name: given[name] for name in _MOVED})
        .returning(*(actions.c[name] for name in _PLACE))
    )


def _update_childless(given: Given) -> Update:
    """Where, besides, nothing below it lives: whoever adds a child has committed before the lock is had, or finds an end."""
    at = and_(*(actions.c[name] == given["_" + name] for name in _PLACE))
    held = select(*(actions.c[name] for name in _PLACE)).where(at).with_for_update(key_share=True, of=actions).cte("held")
    childless = select(*held.c).where(~func.pg_temp.flyte_live_below(*held.c, type_=Boolean)).cte("childless")
    return _update(given).where(exists(select(1).where(*(childless.c[name] == given["_" + name] for name in _PLACE))))


_GIVEN: Given = {"_" + name: bindparam("_" + name) for name in (*_PLACE, "request_id")}
_KEY = {"_" + name: name for name in _PLACE}
_GET = Each(_get, values=_types(*_PLACE, prefix="_"), key=_KEY)
_LIVE_CHILDREN = Each(
    _live_children,
    values=_types(*_RUN_PLACE, "parent", prefix="_"),
    key={"_" + name: name for name in (*_RUN_PLACE, "parent")},
)
_ADD_CHILD = Each(_add_child, values=_types(*rows.COLUMNS, prefix="_"), key=_KEY)
_ADD_KNOWN_CHILD = Each(_add_known_child, values=_ADD_CHILD.values, key=_KEY, alone=_add_known_child)
"""Of a task that is stored already"""
_UPDATED = _types(*_PLACE, "version", prefix="_") | _types(*_MOVED) | {"_epoch": leadership.c.epoch.type}
_UPDATE = Each(_update, values=_UPDATED, key=_KEY)
_STEP = Each(_update, values=_UPDATED, key=_KEY, alone=_update)
_END = Each(_update, values=_UPDATED, key=_KEY, alone=_update_childless)
"""The same, where nothing else is to be written; and where that depends on there being nothing below."""
_EPOCH = select(leadership.c.epoch, leadership.c.holder).where(leadership.c.name == bindparam("_name"))
_TAKE_LEAD = insert_or_update(
    leadership,
    key="name",
    columns=("epoch", "holder", "since"),
    where=or_(
        leadership.c.epoch < new(leadership).c.epoch,
        and_(leadership.c.epoch == new(leadership).c.epoch, leadership.c.holder == new(leadership).c.holder),
    ),
).returning(leadership.c.epoch)
_ARCHIVE = insert_new(attempts)
_ATTEMPTS = select(attempts.c.record).where(_at(_GIVEN, *_PLACE, of=attempts)).order_by(attempts.c.attempt)
_ADD_SPEC = Each(
    lambda given: insert_new(task_specs).from_select(
        ["digest", "spec"], select(given["_digest"], given["_spec"]).where(true())
    ),
    values={"_digest": task_specs.c.digest.type, "_spec": task_specs.c.spec.type},
    key={"_digest": "digest"},
)
_GET_SPEC = select(task_specs.c.spec).where(task_specs.c.digest == bindparam("_digest"))
_ADD_RUN = insert_new(runs).returning(runs.c.run)
_ADD_LABEL = insert_new(run_labels)
_IS_RUN = Each(
    lambda given: select(*(runs.c[name] for name in _RUN_PLACE)).where(_at(given, *_RUN_PLACE, of=runs)),
    values=_types(*_RUN_PLACE, prefix="_"),
    key={"_" + name: name for name in _RUN_PLACE},
)
_GET_RUN = select(runs).where(_at(_GIVEN, *_RUN_PLACE, of=runs))
_GET_RUN_BY_REQUEST = select(runs).where(_at(_GIVEN, "project", "domain", "request_id", of=runs))
_COUNT_LIVE = select(func.count()).select_from(actions).where(actions.c.ended_at.is_(None), actions.c.reported.is_(None))


def get_run(key: RunKey) -> Work[Run | None]:
    row = (yield _GET_RUN, rows.run_place(key)).one_or_none()
    return rows.run_from(row) if row is not None else None


def get_action(key: ActionKey) -> Work[Action | None]:
    row = (yield _GET, rows.place(key)).one_or_none()
    return rows.action_from(row) if row is not None else None


def get_attempts(key: ActionKey) -> Work[tuple[run_definition_pb2.ActionAttempt, ...]]:
    """The records of the finished attempts before the latest one."""
    found = (yield _ATTEMPTS, rows.place(key)).all()
    return tuple(run_definition_pb2.ActionAttempt.FromString(row.record) for row in found)


def get_children(parent: ActionKey) -> Work[list[Action]]:
    """The action itself, where it exists, and its direct children."""
    own = (yield _GET, rows.place(parent)).all()
    children = (yield _CHILDREN, {**rows.run_place(parent.run_key), "_parent": parent.name}).all()
    return [rows.action_from(row) for row in (*own, *children)]


def get_live() -> Work[list[Action]]:
    """Of what is carried out here."""
    found = (yield _LIVE).all()
    return [rows.action_from(row) for row in found]


def get_spec(digest: str) -> Work[bytes | None]:
    row = (yield _GET_SPEC, {"_digest": digest}).one_or_none()
    return row.spec if row is not None else None


def add_run(new: NewRun) -> Work[tuple[Run, Action, bool]]:
    """Stores a run with its root, or finds the one that the same call made before; True when it is new.

    Raises AlreadyExists when the name is taken by a run of other content.
    """
    while (made := (yield from _made_before(new))) is None:
        if (yield _ADD_RUN, rows.of_run(new.run)).first() is None:  # another replica was faster
            continue
        if labels := rows.of_labels(new.run):
            yield _ADD_LABEL, labels
        yield _ADD_ROOT, rows.of_action(new.root)  # before others of the batch look for it
        yield _ADD_SPEC, {"_digest": new.root.spec_digest, "_spec": new.spec}
        if new.beside is not None:
            yield from new.beside()
        return new.run, new.root, True
    if made.content != new.run.content:
        raise AlreadyExists(f"run_id.name: run {made.key.run} exists with another task, other inputs or another run_spec")
    root = yield from get_action(made.key.action(new.root.key.name))
    if root is None:
        raise NotFound(f"run {made.key} has no root action")
    return made, root, False


def _made_before(new: NewRun) -> Work[Run | None]:
    known = None
    if (yield _IS_RUN, rows.run_place(new.run.key)).first() is not None:  # most often it isn't, and this costs less
        known = yield from get_run(new.run.key)
    if known is None and new.run.request_id:
        place = {"_project": new.run.key.project, "_domain": new.run.key.domain, "_request_id": new.run.request_id}
        row = (yield _GET_RUN_BY_REQUEST, place).one_or_none()
        known = rows.run_from(row) if row is not None else None
    return known


def add_action(
    new: Action, spec: bytes | None, beside: Callable[[], Work[None]] | None = None, *, known: bool = False
) -> Work[tuple[Action, bool]]:
    """Stores a child of a live parent, or finds it; True when it is new: then ``beside`` is written too.

    ``spec`` is its task's, if it has one, and ``known`` if it should be stored already.

    Raises NotFound without the parent, Aborted when the parent has ended, AlreadyExists when the name is taken,
    FailedPrecondition in a tracked run.
    """
    add = _ADD_KNOWN_CHILD if known or spec is None else _ADD_CHILD
    while (row := (yield add, {"_" + name: value for name, value in rows.of_action(new).items()}).first()) is None:
        if (there := (yield from get_action(new.key))) is not None:
            return (yield from _add_again(_same(there, new), new))
        parent = yield from get_action(new.key.sibling(new.parent or ""))
        if parent is None:
            raise NotFound(f"parent_action_name: run {new.key.run_key} has no action {new.parent!r}")
        if parent.tracked:
            raise FailedPrecondition(f"run {new.key.run_key} is tracked: its client carries it out, and reports its actions")
        if parent.terminal:
            raise Aborted(f"action {new.parent!r} has ended ({parent.phase.name}); it starts nothing more")
        add = _ADD_CHILD
    if spec is not None and add is _ADD_CHILD:
        yield _ADD_SPEC, {"_digest": new.spec_digest, "_spec": spec}
    if beside is not None:
        yield from beside()
    return replace(new, depth=row.depth), True


def _add_again(known: Action, new: Action) -> Work[tuple[Action, bool]]:
    """What there is already, or, of a trace that failed, its next try."""
    if known.action_type is not ActionType.TRACE or known.phase is not Phase.FAILED:
        return known, False
    again = moves.recorded_again(known, new)
    if not (yield from _save(known, again)):
        return known, False
    yield _ARCHIVE, rows.of_attempt(known.key, known.latest())
    return again, True


def move(
    key: ActionKey, steps: Sequence[Move | Retry], *, now: Micros, epoch: int | None = None, known: Action | None = None
) -> Work[list[Action]]:
    """Applies ``steps`` in order, skipping those that may not be; every action changed, the one named first.

    An action that ends aborts what it started. ``known`` is the row as its caller last saw it: where it is still so, it need
    not be read. ``epoch`` is of the leader that decided this. Raises NotFound; NotLeader where another leads by now.
    """
    before = known
    while True:
        if before is None:
            if (before := (yield from get_action(key))) is None:
                raise NotFound(f"there is no action {key}")
            known = None
        after, archived = _apply(before, steps, now=now)
        ends = after.terminal and after.action_type is ActionType.TASK
        how = _UPDATE if archived else _END if ends else _STEP
        if after is not before and (yield from _save(before, after, epoch=epoch, how=how)):
            break
        if epoch is not None:
            yield from _check_lead(epoch)
        if after is before and known is None:
            return []
        before = None
    if archived:
        yield _ARCHIVE, [rows.of_attempt(key, record) for record in archived]
    changed = [after]
    if ends:
        changed += yield from _abort_below(after, now=now, reason=_reason(after), principal=after.principal)
    return changed


def report(reports: Sequence[Report]) -> Work[tuple[list[Action], list[FlyteUnifiedError | None]]]:
    """Keeps what a client says, report by report: the actions that changed, and of each report what was wrong with it."""
    changed: dict[ActionKey, Action] = {}
    wrong: list[FlyteUnifiedError | None] = []
    for each in reports:
        try:
            after = yield from _report(each)
        except FlyteUnifiedError as error:
            wrong.append(error)
            continue
        wrong.append(None)
        if after is not None:
            changed[after.key] = after
    return list(changed.values()), wrong


def _report(new: Report) -> Work[Action | None]:
    while True:
        known = yield from get_action(new.key)
        above = None
        if known is None:  # its parent is held: what aborts that sees the child, or has been here before
            row = (yield _HOLD, rows.place(new.key.sibling(new.parent))).one_or_none()
            above = rows.action_from(row) if row is not None else None
        after, finished = new.judge(known, above)
        if after is known:
            return None
        if known is not None:
            saved = yield from _save(known, after)
        else:
            saved = (yield _ADD_REPORTED, rows.of_action(after)).first() is not None
            if saved and new.spec is not None:
                yield _ADD_SPEC, {"_digest": new.spec[0], "_spec": new.spec[1]}
        if saved:
            if finished is not None:
                yield _ARCHIVE, rows.of_attempt(after.key, finished)
            return after


def abort_run(key: RunKey, *, now: Micros, reason: str, principal: str) -> Work[list[Action]]:
    """Aborts every live action of a run, below whatever it is."""
    abort = Move(to=Phase.ABORTED, reason=reason, principal=principal)
    changed: list[Action] = []
    while live := [rows.action_from(row) for row in (yield _LIVE_IN_RUN, rows.run_place(key)).all()]:
        ends = {before.key: (before, after) for before in live if (after := moves.apply(before, abort, now=now)) is not None}
        saved = {ActionKey._make(row) for row in (yield _UPDATE, [_guarded(*pair) for pair in ends.values()]).all()}
        changed += [ends[key][1] for key in ends if key in saved]
    return changed


def take_lead(name: str, epoch: int, holder: str, *, now: Micros) -> Work[None]:
    """Notes that ``holder`` leads from now on. Raises NotLeader when another does, in this epoch or a later one."""
    values = {"name": name, "epoch": epoch, "holder": holder, "since": now}
    if (yield _TAKE_LEAD, values).first() is None:
        row = (yield _EPOCH, {"_name": name}).one()
        raise NotLeader(f"{name}: {holder} would lead in epoch {epoch}, but {row.holder} does in epoch {row.epoch}")


def last_epoch(name: str) -> Work[int]:
    row = (yield _EPOCH, {"_name": name}).one_or_none()
    return row.epoch if row is not None else 0


def _check_lead(epoch: int) -> Work[None]:
    row = (yield _EPOCH, {"_name": EXECUTOR}).one_or_none()
    if row is None or row.epoch != epoch:
        told = f"{row.holder} does in epoch {row.epoch}" if row is not None else "nobody does"
        raise NotLeader(f"who led in epoch {epoch} leads no more: {told}")


def save_state(key: ActionKey, state: str, *, now: Micros) -> Work[bool]:
    statement = update(actions).where(_ONE).values(state=state, updated_at=now).returning(actions.c.name)
    return (yield statement, rows.place(key)).first() is not None


def count_live() -> Work[int]:
    return int((yield _COUNT_LIVE).scalar_one())


def _apply(
    action: Action, steps: Sequence[Move | Retry], *, now: Micros
) -> tuple[Action, list[run_definition_pb2.ActionAttempt]]:
    archived = []
    for step in steps:
        if isinstance(step, Retry):
            if (renewed := moves.retry(action, step, now=now)) is not None:
                action = renewed[0]
                archived.append(renewed[1])
        else:
            action = moves.apply(action, step, now=now) or action
    return action, archived


def _abort_below(parent: Action, *, now: Micros, reason: str, principal: str) -> Work[list[Action]]:
    """Level by level. What another writer was faster with is looked at again."""
    abort = Move(to=Phase.ABORTED, reason=reason, principal=principal)
    changed: list[Action] = []
    parents = {parent.key}
    while parents:
        places = [{**rows.run_place(key.run_key), "_parent": key.name} for key in sorted(parents)]
        live = map(rows.action_from, (yield _LIVE_CHILDREN, places).all())
        ends = {before.key: (before, after) for before in live if (after := moves.apply(before, abort, now=now)) is not None}
        if not ends:
            break
        saved = {ActionKey._make(row) for row in (yield _UPDATE, [_guarded(*pair) for pair in ends.values()]).all()}
        changed += [after for key, (_, after) in ends.items() if key in saved]
        parents = {key if key in saved else key.sibling(before.parent or "") for key, (before, _) in ends.items()}
    return changed


def _save(before: Action, after: Action, *, epoch: int | None = None, how: Each = _UPDATE) -> Work[bool]:
    return (yield how, _guarded(before, after, epoch=epoch)).first() is not None


def _guarded(before: Action, after: Action, *, epoch: int | None = None) -> dict[str, Any]:
    values = {name: getattr(after, name) for name in _MOVED}
    return {**rows.place(before.key), "_version": before.version, "_epoch": epoch, **values}


def _reason(parent: Action) -> str:
    if parent.phase is Phase.ABORTED:
        return parent.reason
    return f"its parent {parent.key.name} ended ({parent.phase.name})"


_IDENTITY = ("parent", "action_type", "group_name", "task", "input_uri", "spec_digest")


def _same(known: Action, new: Action) -> Action:
    """``known``, if ``new`` says the same. Raises AlreadyExists naming the first field that differs."""
    for name in _IDENTITY:
        if getattr(known, name) != getattr(new, name):
            raise AlreadyExists(f"action {new.key.name} exists with another {name.removesuffix('_name')}")
    return known
