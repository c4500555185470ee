"""Where things are: the console's addresses, as the SDK prints them, and their queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode

from flyte_unified.console.store import ActionMark, RunMark
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, RunKey

HOME = "/v2"

M = TypeVar("M", RunMark, ActionMark)


def project(name: str, domain: str) -> str:
    return f"{HOME}/domain/{_part(domain)}/project/{_part(name)}"


def task(name: str, *, of: tuple[str, str]) -> str:
    """``of`` is its project and domain."""
    return f"{project(*of)}/tasks/{_part(name)}"


def run(key: RunKey) -> str:
    return f"{project(key.project, key.domain)}/runs/{_part(key.run)}"


def action(key: ActionKey) -> str:
    """The run's page, with this action chosen."""
    return run(key.run_key) if key.name == ROOT_ACTION else with_query(run(key.run_key), i=key.name)


def file(key: ActionKey, name: str) -> str:
    """``name``: inputs or outputs."""
    return f"{_below(key)}/{name}"


def log(key: ActionKey, attempt: int) -> str:
    return f"{_below(key)}/attempts/{attempt}/log"


def report(key: ActionKey, attempt: int) -> str:
    return f"{_below(key)}/attempts/{attempt}/report"


def with_query(path: str, **query: str) -> str:
    """``path``, which may have a query already, with more of it."""
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}" if query else path


def mark_text(mark: RunMark | ActionMark) -> str:
    """A mark as a query's value. No name holds a comma."""
    return ",".join(map(str, mark))


def mark(kind: type[M], query: Mapping[str, str]) -> M | None:
    """The mark in ``after``, where a page begins. Raises InvalidArgument."""
    text = query.get("after", "")
    if not text:
        return None
    at, *names = text.split(",")
    if len(names) != len(kind._fields) - 1 or not (at.isascii() and at.isdecimal() and len(at) < 19) or "\0" in text:
        raise InvalidArgument(f"after: {text[:128]!r} is no place in this list")
    return kind(int(at), *names)


def _below(key: ActionKey) -> str:
    return f"{run(key.run_key)}/actions/{_part(key.name)}"


def _part(text: str) -> str:
    return quote(text, safe="")
