"""The page of recent runs."""

from __future__ import annotations

from collections.abc import Sequence

from flyte_unified.console import places
from flyte_unified.console.html import Content, Html, link, tag
from flyte_unified.console.parts import Page, ago, badge, elapsed, table
from flyte_unified.console.store import Listed, RunMark, Scope

_REFRESH = 5


def runs_page(runs: Sequence[Listed], scope: Scope, *, path: str, first: bool, more: RunMark | None, now: int) -> Page:
    """``runs`` of ``scope``, from the newest one if this is the ``first`` page; the next one begins behind ``more``."""
    project, domain, task = scope
    crumbs: list[Content] = []
    if project:
        crumbs.append(link(places.project(project, domain), f"{project} / {domain}"))
    if task:
        crumbs.append(link(places.task(task, of=(project, domain)), task))
    title = f"Runs of {task}" if task else f"Runs in {project} / {domain}" if project else "Recent runs"
    pages = [
        link(path, "← Newest", rel="first") if not first else None,
        link(places.with_query(path, after=places.mark_text(more)), "Older →", rel="next") if more is not None else None,
    ]
    return Page(
        title=title,
        crumbs=crumbs,
        body=[
            tag("h1", title),
            _table(runs, whole=not project, now=now) if runs else _nothing(first=first),
            tag("nav", pages, class_="pages", aria_label="Pages") if any(pages) else None,
        ],
        refresh=_REFRESH if any(not run.phase.terminal for run in runs) else None,
    )


def _table(runs: Sequence[Listed], *, whole: bool, now: int) -> Html:
    columns = [("Run", ""), ("Phase", ""), ("Started", "wide"), ("Duration", "number")]
    if whole:
        columns.insert(2, ("Project", "wide"))
    return table("Runs, the newest first", columns, [_row(run, whole=whole, now=now) for run in runs], class_="runs")


def _row(run: Listed, *, whole: bool, now: int) -> Html:
    project, domain, name, _ = run.key
    scope = link(places.project(project, domain), f"{project} / {domain}")
    return tag(
        "tr",
        tag("th", link(places.action(run.key), run.task_name or run.title), " ", tag("small", name), scope="row"),
        tag("td", badge(run.phase)),
        tag("td", scope, class_="wide") if whole else None,
        tag("td", ago(run.created_at, now=now), class_="wide"),
        tag("td", elapsed(run.created_at, run.ended_at, now=now), class_="number"),
    )


def _nothing(*, first: bool) -> Html:
    text = (
        "Nothing has run here yet. What you start with the flyte command or the SDK appears here."
        if first
        else "No older runs."
    )
    return tag("p", text, class_="empty")
