"""Logs as text, and files through signed addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import pytest

from flyte_unified.core.errors import PermissionDenied
from flyte_unified.core.http import Request, Response
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType, Move
from flyte_unified.storage.routes import data_routes
from tests.unit.console.conftest import ROOT, Console

PAGE = "/v2/domain/development/project/flytesnacks/runs/rfirst"


def _body(response: Response) -> AsyncIterator[bytes]:
    assert not isinstance(response.body, bytes)
    return response.body


async def _read(response: Response) -> bytes:
    return b"".join([piece async for piece in _body(response)])


async def test_a_log_is_plain_text(console: Console) -> None:
    """An ended attempt's log as it was written, shown and never interpreted by a browser."""
    await console.run()
    await console.end(ROOT)
    console.lines.texts[ROOT, 1] = ["one\n", "<script>alert('é')</script>\n", "no end"]
    path = console.pages.log_link(ROOT, 1)
    assert path == f"{PAGE}/actions/a0/attempts/1/log"
    response = await console.get(path)
    headers = dict(response.headers)
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["x-content-type-options"] == "nosniff"
    assert await _read(response) == "one\n<script>alert('é')</script>\nno end".encode()


async def test_a_live_log_goes_on_until_its_attempt_ends(console: Console) -> None:
    """The answer begins at once; lines come as they are written; the end of the attempt ends it."""
    await console.run()
    response = await console.get(console.pages.log_link(ROOT, 1))
    async with aclosing(cast("AsyncIterator[bytes]", _body(response))) as pieces:  # type: ignore[type-var]
        console.lines.texts[ROOT, 1] = ["one\n"]
        assert await anext(pieces) == b"one\n"
        following = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        assert not following.done()
        console.lines.texts[ROOT, 1].append("two\n")
        await console.ledger.move(ROOT, Move(to=Phase.FAILED))
        assert await following == b"two\n"
        assert [piece async for piece in pieces] == []


async def test_a_reader_that_leaves_ends_nothing_else(console: Console) -> None:
    """A log that is closed half-way leaves no task behind (the test's loop is looked into)."""
    await console.run()
    console.lines.texts[ROOT, 1] = ["one\n"]
    pieces = _body(await console.get(console.pages.log_link(ROOT, 1)))
    assert await anext(pieces) == b"one\n"
    await pieces.aclose()  # type: ignore[attr-defined]


async def test_traces_have_no_log(console: Console) -> None:
    """Their lines are their task's."""
    await console.run()
    key = await console.note("trace", ActionType.TRACE, spec=b"", phase=Phase.SUCCEEDED)
    assert (await console.get(console.pages.log_link(key, 1))).status == 404


@pytest.mark.parametrize("name", ["inputs", "outputs"])
async def test_files_are_fetched_from_the_store(console: Console, name: str) -> None:
    """The page's link, which never grows old, leads to a fresh signed address."""
    await console.run(x=1)
    await console.end(ROOT, o0=2)
    response = await console.get(f"{PAGE}/actions/a0/{name}")
    location = urlsplit(dict(response.headers)["location"])
    assert (response.status, location.scheme, location.netloc) == (302, "http", "localhost:30080")
    fetch = next(route.handler for route in data_routes(console.store) if route.method == "GET")
    request = Request("GET", location.path, dict(parse_qsl(location.query)), (), _body(Response(body=_nothing())))
    assert (await fetch(request)).status == 200
    console.clock.pass_(301)
    assert (await fetch(request)).status == 403


async def test_a_report_is_fetched_from_the_store(console: Console) -> None:
    """An attempt with a report links to it."""
    await console.run()
    uri = f"{console.store.base('objects')}/report.html"
    await console.store.put(uri, b"<h1>Report</h1>")
    await console.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, report_uri=uri))
    href = (await console.see(PAGE)).links["Report"]
    assert "report.html" in dict((await console.get(href)).headers)["location"]


async def test_files_outside_of_the_store_stay_there(console: Console) -> None:
    """What a task says about its report can't make the server sign anything else."""
    await console.run()
    await console.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, report_uri="/etc/passwd", output_uri="/etc"))
    with pytest.raises(PermissionDenied):
        await console.get(f"{PAGE}/actions/a0/attempts/1/report")
    assert "lies outside of the storage roots" in (await console.see(PAGE)).text


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xff\xff\xff", "The file is damaged."), (b"\0" * (300 << 10), "Too large to be shown here."), (None, "No such file")],
)
async def test_values_that_can_not_be_shown(console: Console, data: bytes | None, said: str) -> None:
    """A damaged, large or lost file is told in the place of its values."""
    await console.run()
    uri = f"{console.store.base('objects')}/outputs.pb"
    if data is not None:
        await console.store.put(uri, data)
    await console.ledger.move(ROOT, Move(to=Phase.SUCCEEDED, output_uri=uri))
    assert said in (await console.see(PAGE)).text


async def test_long_values_are_cut(console: Console) -> None:
    """A page shows the beginning of a long text, and how long it is."""
    await console.run(text="x" * 5000)
    page = await console.see(PAGE)
    assert "xxx… (5000 characters)" in page.text
    assert "x" * 2001 not in page.text


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
