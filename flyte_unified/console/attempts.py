"""The attempts of an action: phases, errors, logs."""

from __future__ import annotations

from collections.abc import Sequence

from flyteidl2.core import catalog_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.console import places
from flyte_unified.console.html import Content, Html, link, tag
from flyte_unified.console.parts import badge, elapsed, moment, table
from flyte_unified.core.clock import micros
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType, Details

_MOST = 20
"""Attempts on a page, the latest ones."""
_EVENTS = 20


def attempts_section(details: Details, *, now: int) -> Html:
    """Every attempt, the latest first and open."""
    latest, *earlier = list(details.attempts)[: -_MOST - 1 : -1]
    left_out = len(details.attempts) - 1 - len(earlier)
    return tag(
        "section",
        tag("h2", "Attempts"),
        _attempt(latest, details, now=now, open_=True),
        [_attempt(record, details, now=now, open_=False) for record in earlier],
        tag("p", f"{left_out} earlier ones are not shown.", class_="empty") if left_out else None,
    )


def _attempt(record: run_definition_pb2.ActionAttempt, details: Details, *, now: int, open_: bool) -> Html:
    action = details.action
    start = micros(record.start_time)
    end = micros(record.end_time) if record.HasField("end_time") else None
    summary = tag(
        "summary",
        tag("b", f"Attempt {record.attempt}"),
        badge(Phase(record.phase)),
        tag("span", elapsed(start, end, now=now), class_="number"),
    )
    return tag(
        "details",
        summary,
        _links(record, details),
        _error(record) if record.attempt != action.attempt or not action.terminal else None,
        _phases(record.phase_transitions, now=now),
        _events(record.cluster_events),
        open=open_,
    )


def _links(record: run_definition_pb2.ActionAttempt, details: Details) -> Html | None:
    action = details.action
    log = places.log(action.key, record.attempt)
    links = []
    if action.action_type is ActionType.TASK and record.cache_status != catalog_pb2.CACHE_HIT:
        links.append(link(log, "Log"))
    if record.outputs.report_uri:
        links.append(link(places.report(action.key, record.attempt), "Report"))
    links += [
        link(each.uri, each.name or each.uri, rel="noopener noreferrer external")
        for each in record.log_info
        if not each.uri.endswith(log)
    ]
    return tag("ul", [tag("li", each) for each in links], class_="links") if links else None


def _error(record: run_definition_pb2.ActionAttempt) -> Content:
    """Of an attempt that was retried: the last one's stands at the top of the page."""
    if not record.HasField("error_info"):
        return None
    error = record.error_info
    return [tag("p", tag("b", error.code), class_="code") if error.code else None, tag("pre", error.message, class_="failed")]


def _phases(transitions: Sequence[run_definition_pb2.PhaseTransition], *, now: int) -> Html | None:
    rows = []
    for each in transitions:
        start = micros(each.start_time)
        end = micros(each.end_time) if each.HasField("end_time") else None
        lasted = None if Phase(each.phase).terminal else elapsed(start, end, now=now)
        rows.append(
            tag("tr", tag("td", badge(Phase(each.phase))), tag("td", moment(start)), tag("td", lasted, class_="number"))
        )
    return table("Phases", [("Phase", ""), ("Since", ""), ("For", "number")], rows, class_="phases") if rows else None


def _events(events: Sequence[run_definition_pb2.ClusterEvent]) -> Html | None:
    rows = [
        tag("li", moment(micros(event.occurred_at)), " ", tag("b", event.reason), " ", event.message)
        for event in list(events)[-_EVENTS:]
    ]
    return tag("ul", rows, class_="events", aria_label="Events") if rows else None
