"""The page of a run: one of its actions (the root, if no other is chosen), and what that action started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flyteidl2.core import catalog_pb2, execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.console import places
from flyte_unified.console.attempts import attempts_section
from flyte_unified.console.html import Content, Html, link, tag
from flyte_unified.console.parts import Page, badge, elapsed, facts, moment, phase_class, phase_name, table
from flyte_unified.console.store import ActionMark, Listed, Tree
from flyte_unified.console.values import Values
from flyte_unified.core.clock import SECOND
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Action, ActionType, Details, Run
from flyte_unified.notifications.api import Delivery

_DEEPEST = 8
"""Levels that are set off from each other; deeper ones stand below the last."""
_PACE = ((120, 2), (1200, 5))
"""A run younger than the first (seconds) is looked at as often as the second says."""
_SLOWEST = 15
_SOURCES = {
    run_definition_pb2.RUN_SOURCE_WEB: "Browser",
    run_definition_pb2.RUN_SOURCE_CLI: "SDK or command line",
    run_definition_pb2.RUN_SOURCE_SCHEDULE_TRIGGER: "Schedule",
    run_definition_pb2.RUN_SOURCE_ARTIFACT_TRIGGER: "Artifact",
    run_definition_pb2.RUN_SOURCE_TRACKED: "Elsewhere: its client carries it out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page shows. Of ``chosen`` (the actions in one phase, flat) and ``tree`` there is one."""

    run: Run
    details: Details
    line: Sequence[Listed]
    """From the root to the action."""
    counts: Mapping[Phase, int]
    tree: Tree | None
    chosen: tuple[Phase, Sequence[Listed], ActionMark | None] | None
    values: Sequence[Values]
    further: bool
    """Whether the list goes on from an earlier page."""
    undelivered: Sequence[Delivery] = ()
    """Notifications that somebody should have by now."""

    @property
    def root(self) -> Listed:
        return self.line[0]


def action_page(shown: Shown, *, now: int) -> Page:
    action = shown.details.action
    project, domain, run, _ = action.key
    crumbs: list[Content] = [link(places.project(project, domain), f"{project} / {domain}")]
    for each in shown.line:
        here = "page" if each.key == action.key else None
        crumbs.append(link(places.action(each.key), run if each.parent is None else each.title, aria_current=here))
    started = _started(shown, now=now)
    attempts = attempts_section(shown.details, now=now)
    values = [_values(each) for each in shown.values]
    left, right = (started, [attempts, values]) if started is not None else (attempts, values)
    return Page(
        title=f"{phase_name(action.phase)}: {_title(action)}",
        crumbs=crumbs,
        body=[
            _head(shown, now=now),
            _trouble(action),
            tag("div", left, tag("div", right), class_="columns"),
        ],
        refresh=_pace(now - shown.root.created_at) if not action.terminal else None,
    )


def _pace(age: int) -> int:
    return next((seconds for limit, seconds in _PACE if age < limit * SECOND), _SLOWEST)


def _title(action: Action) -> str:
    return action.short_name or action.task.name or action.key.name


def _head(shown: Shown, *, now: int) -> Content:
    action, run = shown.details.action, shown.run
    root = action.parent is None
    return tag(
        "div",
        tag("p", "Run" if root else action.action_type.name.capitalize(), class_="kicker"),
        tag("h1", _title(action), " ", badge(action.phase)),
        facts(
            ("Duration", elapsed(action.created_at, action.ended_at, now=now)),
            ("Created", moment(action.created_at)),
            ("Ended", moment(action.ended_at) if action.ended_at is not None else None),
            ("Attempts", action.attempt if action.attempt > 1 else None),
            ("Cache", cache_text(action.cache_status)),
            ("Next attempt", moment(action.not_before) if action.not_before is not None else None),
            ("Run" if root else "Action", tag("code", action.key.run if root else action.key.name)),
            ("Task", _task(action)),
            ("Type", action.task_type),
            ("Environment", action.environment_name),
            ("Group", action.group_name),
            ("Queue", action.queue),
            ("Started by", run.created_by if root else None),
            ("Started from", _SOURCES.get(run.source) if root else None),
            ("Not delivered", [tag("div", _undelivered(each)) for each in shown.undelivered]),
        ),
        _labels(run.labels) if root else None,
        class_="head",
    )


def _undelivered(each: Delivery) -> str:
    return f"{each.channel}: {each.error}; {'given up' if each.due_at is None else 'tried again'}"


def _task(action: Action) -> Content:
    project, domain, name, version = action.task
    if action.action_type is not ActionType.TASK or not name:
        return None
    return [link(places.task(name, of=(project, domain)), name), tag("small", version) if version else None]


def _labels(labels: Mapping[str, str]) -> Html | None:
    if not labels:
        return None
    items = [tag("li", tag("span", key), tag("b", value)) for key, value in sorted(labels.items())]
    return tag("ul", items, class_="labels", aria_label="Labels")


def _trouble(action: Action) -> Html | None:
    """Why it failed, was aborted, or waits."""
    error = action.execution_error()
    if action.phase in (Phase.FAILED, Phase.TIMED_OUT) and error is not None:
        kind = execution_pb2.ExecutionError.ErrorKind.Name(error.kind).lower() if error.kind else ""
        heading = [tag("b", error.code or phase_name(action.phase)), f" ({kind} error)" if kind else None]
        return _box("failed", heading, tag("pre", error.message))
    if action.phase is Phase.ABORTED:
        by = f" by {action.principal}" if action.principal else ""
        return _box("aborted", [tag("b", "Aborted"), by], tag("p", action.reason) if action.reason else None)
    if action.action_type is ActionType.CONDITION and not action.terminal:
        condition = run_definition_pb2.ConditionAction.FromString(action.spec or b"")
        project, domain, run, name = action.key
        command = tag("code", f"flyte signal condition -p {project} -d {domain} {run} {name}")
        said = [tag("p", condition.prompt or condition.description), tag("p", command, " takes the answer.")]
        return _box("paused", [tag("b", "Waits for an answer")], said)
    return None


def _box(kind: str, heading: Content, content: Content) -> Html:
    return tag("section", tag("h2", heading), content, class_=f"box {kind}")


def _values(values: Values) -> Html:
    items = [tag("div", tag("dt", name), tag("dd", tag("pre", text))) for name, text in values.values]
    nothing = tag("p", values.problem or "None.", class_="empty")
    file = link(places.file(values.key, values.name), "File") if values.file else None
    heading = tag("h2", values.name.capitalize(), " ", tag("small", file) if file else None)
    return tag("section", heading, tag("dl", items, class_="values") if items else nothing)


# What it started


def _started(shown: Shown, *, now: int) -> Html | None:
    total = sum(shown.counts.values())
    if shown.chosen is not None:
        phase, actions, more = shown.chosen
        heading = tag("h2", phase_name(phase), " ", tag("small", f"{shown.counts.get(phase, 0)} of {total} in the run"))
        rows = [_row(action, 0, shown.root, now=now) for action in actions]
        query = {"phase": phase.name.lower()}
    elif shown.tree is not None and shown.tree.children[shown.details.action.key.name]:
        name, more = shown.details.action.key.name, shown.tree.after
        heading = tag("h2", "Actions ", tag("small", f"{shown.tree.counts[name]} started by this one, {total} in the run"))
        rows = list(_rows(shown.tree, name, shown.root, now=now))
        query = {}
    else:
        return None
    path = places.action(shown.details.action.key)
    columns = [
        ("Action", ""),
        ("Phase", ""),
        ("When", "wide"),
        ("Duration", "number"),
        ("Attempt", "number wide"),
        ("Cache", "wide"),
    ]
    return tag(
        "section",
        heading,
        _filters(shown),
        table("Actions", columns, rows, class_="actions"),
        _pages(path, query, more, first=not shown.further),
    )


def _filters(shown: Shown) -> Html:
    """How many actions of the run are in each phase, as links to them."""
    path = places.run(shown.run.key)
    chosen = shown.chosen[0] if shown.chosen is not None else None
    items = [tag("li", link(path, "Tree", aria_current="true" if chosen is None else None))]
    for phase, count in shown.counts.items():
        text = tag("span", f"{count} {phase_name(phase).lower()}", class_=f"phase {phase_class(phase)}")
        href = places.with_query(path, phase=phase.name.lower())
        items.append(tag("li", link(href, text, aria_current="true" if phase is chosen else None)))
    return tag("ul", items, class_="filters", aria_label="Actions of the run by phase")


def _rows(tree: Tree, parent: str, root: Listed, *, now: int) -> Iterator[Html]:
    """The tree from top to bottom, without recursion: chains of actions may be long."""
    waiting = [(child, 0) for child in reversed(tree.children[parent])]
    while waiting:
        child, depth = waiting.pop()
        below = tree.children.get(child.key.name, ())
        hidden = tree.counts.get(child.key.name, 0) - len(below)
        yield _row(child, depth, root, now=now, hidden=hidden)
        waiting += [(each, depth + 1) for each in reversed(below)]


def _row(action: Listed, depth: int, root: Listed, *, now: int, hidden: int = 0) -> Html:
    kind = action.action_type.name.lower() if action.action_type is not ActionType.TASK else ""
    name = [
        tag("span", f"Level {depth + 1}: ", class_="hidden") if depth else None,
        link(places.action(action.key), action.title),
        [" ", tag("small", action.key.name)],
        [" ", tag("small", kind, class_="kind")] if kind else None,
        [" ", tag("small", action.group_name, class_="kind")] if action.group_name else None,
        [" ", tag("small", link(places.action(action.key), f"+ {hidden} below"))] if hidden else None,
    ]
    return tag(
        "tr",
        tag("th", name, scope="row", class_=f"level-{min(depth, _DEEPEST)}"),
        tag("td", badge(action.phase)),
        tag("td", _bar(action, root, now=now), class_="wide"),
        tag("td", elapsed(action.created_at, action.ended_at, now=now), class_="number"),
        tag("td", action.attempt, class_="number wide"),
        tag("td", cache_text(action.cache_status), class_="wide"),
    )


def _bar(action: Listed, root: Listed, *, now: int) -> Html:
    """When in the run's time it waited (pale) and ran. Says nothing that the columns don't, so it is hidden from readers."""
    span = max(1, (root.ended_at or now) - root.created_at)

    def place(at: int) -> float:
        return min(max((at - root.created_at) / span, 0.0), 1.0) * 100

    end = place(action.ended_at or now)
    begin = place(action.created_at)
    middle = begin if action.action_type is ActionType.TRACE else end if action.started_at is None else place(action.started_at)
    drawn = [
        tag("rect", class_=kind, x=f"{left:.2f}", width=f"{max(right - left, 0.6):.2f}", y=0, height=8)
        for kind, left, right in (("wait", begin, middle), ("ran", middle, end))
        if right > left
    ]
    return tag(
        "svg", drawn, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true", class_=phase_class(action.phase)
    )


def _pages(path: str, query: Mapping[str, str], more: ActionMark | None, *, first: bool) -> Html | None:
    base = places.with_query(path, **query)
    pages = [
        link(base, "← First", rel="first") if not first else None,
        link(places.with_query(base, after=places.mark_text(more)), "More →", rel="next") if more is not None else None,
    ]
    return tag("nav", pages, class_="pages", aria_label="Pages") if any(pages) else None


def cache_text(status: int) -> str:
    """A CatalogCacheStatus for people; nothing where caching is off."""
    if status == catalog_pb2.CACHE_DISABLED or status not in catalog_pb2.CatalogCacheStatus.values():
        return ""
    return str(catalog_pb2.CatalogCacheStatus.Name(status)).removeprefix("CACHE_").replace("_", " ").capitalize()
