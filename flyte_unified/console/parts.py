"""What every page is made of: the frame around it, phases, times and durations. All times are UTC; no script knows better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flyte_unified.console import places
from flyte_unified.console.html import Content, Html, link, render, tag
from flyte_unified.core.clock import SECOND
from flyte_unified.core.phases import Phase

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799 * SECOND
"""The end of the year 9999, where ``datetime`` ends."""
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page without its frame. ``refresh`` in seconds, while something on it is live; ``crumbs`` lead to it."""

    title: str
    body: Content
    crumbs: Sequence[Content] = ()
    refresh: int | None = None


def document(page: Page, *, style: Html, other: str, paused: bool) -> bytes:
    """The whole document. Unless ``paused`` it refreshes while it is live; ``other`` is its address for the opposite."""
    refresh = page.refresh if not paused else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=refresh) if refresh is not None else None,
        tag("title", page.title, " · Flyte"),
        tag("style", style),
    )
    crumbs = [tag("li", link(places.HOME, "Runs")), *(tag("li", crumb) for crumb in page.crumbs)]
    header = tag(
        "header",
        link(places.HOME, "Flyte", Html("&nbsp;"), tag("span", "unified"), class_="brand"),
        tag("nav", tag("ol", crumbs), aria_label="Breadcrumb"),
        _liveness(page, other=other, paused=paused),
    )
    body = tag(
        "body",
        tag("a", "Skip to content", class_="skip", href="#main"),
        header,
        tag("main", page.body, id="main"),
        tag("footer", "All times are UTC."),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n".encode("utf-8", "replace")


def _liveness(page: Page, *, other: str, paused: bool) -> Html | None:
    if page.refresh is None:
        return None
    if paused:
        return tag("p", "Paused ", link(other, "Go on"), class_="live off")
    return tag("p", tag("span", f"Refreshes every {page.refresh} s"), " ", link(other, "Pause"), class_="live")


def badge(phase: Phase) -> Html:
    """A phase, by colour and by name."""
    return tag("span", phase_name(phase), class_=f"phase {phase_class(phase)}")


def phase_name(phase: Phase) -> str:
    return phase.name.replace("_", " ").capitalize()


def phase_class(phase: Phase) -> str:
    return phase.name.lower().replace("_", "-")


def moment(at: int) -> Html:
    """A point in time (microseconds)."""
    when = _datetime(at)
    return tag("time", f"{when:%Y-%m-%d %H:%M:%S}", datetime=when.isoformat())


def ago(at: int, *, now: int) -> Html:
    """How long ago, for lists; the time itself shows on demand."""
    when = _datetime(at)
    text = "just now" if now - at < SECOND else f"{_rough((now - at) // SECOND)} ago"
    return tag("time", text, datetime=when.isoformat(), title=f"{when:%Y-%m-%d %H:%M:%S} UTC")


def duration(micros: int) -> str:
    """A length of time for people."""
    if micros < SECOND:
        return f"{max(0, micros) // 1000} ms"
    seconds = micros / SECOND
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    unit, name, smaller, smaller_name = next(each for each in _UNITS if whole >= each[0])
    rest = whole % unit // smaller
    return f"{whole // unit} {name} {rest} {smaller_name}" if rest else f"{whole // unit} {name}"


def elapsed(start: int, end: int | None, *, now: int) -> str:
    return duration((end if end is not None else now) - start)


def facts(*pairs: tuple[str, Content]) -> Html:
    """Names and values; pairs without a value are left out."""
    shown = [(name, html) for name, value in pairs if (html := render(value))]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", html)) for name, html in shown], class_="facts")


def table(caption: str, columns: Sequence[tuple[str, str]], rows: Content, *, class_: str = "") -> Html:
    """``columns`` are headings with the class of their cells (``wide``: not on a phone)."""
    headings = [tag("th", name, scope="col", class_=kind or None) for name, kind in columns]
    return tag(
        "table",
        tag("caption", caption, class_="hidden"),
        tag("thead", tag("tr", headings)),
        tag("tbody", rows),
        class_=class_ or None,
    )


def _rough(seconds: int) -> str:
    unit, name = next(((unit, name) for unit, name, _, _ in _UNITS if seconds >= unit), (1, "s"))
    return f"{seconds // unit} {name}"


def _datetime(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(max(at, 0), _LATEST))
