"""Lists that don't fit on a page."""

from __future__ import annotations

import asyncio

from flyteidl2.core import execution_pb2

from flyte_unified.console import store
from flyte_unified.core.http import Response
from flyte_unified.core.ids import RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Failure, Retry
from tests.unit.console.conftest import ROOT, Console, Outline, outline

PAGE = "/v2/domain/development/project/flytesnacks/runs/rfirst"


def _runs(page: Outline) -> list[str]:
    return [href.rpartition("/")[2] for tag, found in page.elements if tag == "a" and "/runs/" in (href := found["href"] or "")]


def _actions(page: Outline) -> list[str]:
    """The actions whose rows are shown, in order."""
    links = [found["href"] or "" for tag, found in page.elements if tag == "a"]
    return list(dict.fromkeys(href.partition("?i=")[2] for href in links if "?i=" in href and "&" not in href))


async def test_runs_page_by_page(console: Console) -> None:
    """Every run once, also those that were created in the same microsecond."""
    keys = [RunKey(f"project{number % 3}", "development", f"r{number:03}") for number in range(2 * store.RUNS + 7)]
    for key in keys:
        await console.run(key)
        console.clock.pass_(-0.001)
    found, path = [], "/v2"
    for _ in range(2):
        page = await console.see(path)
        assert len(_runs(page)) == store.RUNS
        found += _runs(page)
        path = page.links["Older →"]
    last = await console.see(path)
    found += _runs(last)
    assert sorted(found) == [key.run for key in keys]
    assert "Older →" not in last.links
    assert last.links["← Newest"] == "/v2"


async def test_a_run_of_ten_thousand_actions(console: Console) -> None:
    """A page stays small: it shows the first children, how many there are, and where to go on."""
    await console.run()
    names = [f"n{number:04}" for number in range(10_000)]
    for start in range(0, len(names), 1000):
        await asyncio.gather(*(console.child(name) for name in names[start : start + 1000]))
    response: Response = await console.get(PAGE)
    assert isinstance(response.body, bytes)
    assert len(response.body) < 300_000
    page = outline(response)
    assert "10000 started by this one, 10001 in the run" in page.text
    assert _actions(page) == names[: store.CHILDREN]
    following = await console.see(page.links["More →"])
    assert _actions(following) == names[store.CHILDREN : 2 * store.CHILDREN]
    assert following.links["← First"] == PAGE
    queued = await console.see(f"{PAGE}?phase=queued")
    assert len(_actions(queued)) == store.CHILDREN - 1
    assert _actions(await console.see(queued.links["More →"]))[0] == names[store.CHILDREN - 1]


async def test_room_is_shared_by_the_levels(console: Console) -> None:
    """Of many children with many children each a few are shown, and how many more there are below each."""
    await console.run()
    parents = [f"p{number:02}" for number in range(40)]
    for parent in parents:
        await console.child(parent)
        await asyncio.gather(*(console.child(f"{parent}c{number:02}", parent=parent) for number in range(30)))
    page = await console.see(PAGE)
    shown = _actions(page)
    assert len(shown) < 300
    assert set(parents) <= set(shown)
    assert "p00c00" in shown
    assert "p39c00" in shown
    assert "+ 24 below" in page.text
    assert "p00c29" in _actions(await console.see(f"{PAGE}?i=p00"))


async def test_room_for_some_parents_only(console: Console) -> None:
    """Where even one child of each is too many, the first parents show theirs, and the others how many they have."""
    await console.run()
    parents = [f"p{number:03}" for number in reversed(range(store.CHILDREN))]
    for parent in parents:
        await console.child(parent)
        await asyncio.gather(*(console.child(f"{parent}c{number}", parent=parent) for number in range(2)))
    page = await console.see(PAGE)
    shown = _actions(page)
    assert [name for name in shown if len(name) == 4] == parents
    assert [name for name in shown if len(name) > 4] == [f"{parent}c0" for parent in parents[:100]]
    assert page.text.count("+ 1 below") == page.text.count("+ 2 below") == 100


async def test_a_long_chain(console: Console) -> None:
    """Actions that start each other a hundred levels deep: a page shows some levels, and the way from the root."""
    await console.run()
    parent = "a0"
    for number in range(100):
        name = f"d{number:03}"
        await console.child(name, parent=parent, task=f"chain.{name}")
        parent = name
    page = await console.see(PAGE)
    assert _actions(page) == [f"d{number:03}" for number in range(9)]
    assert "+ 1 below" in page.text
    deep = await console.see(f"{PAGE}?i=d050")
    assert "rfirst d045 d046 d047 d048 d049 d050" in deep.text
    assert _actions(deep)[-1] == "d059"


async def test_many_attempts(console: Console) -> None:
    """The latest ones are shown, and how many there were before."""
    await console.run()
    error = execution_pb2.ExecutionError(code="X", message="x")
    for attempt in range(1, 31):
        await console.ledger.move(ROOT, Retry(attempt=attempt, error=error, failure=Failure.SYSTEM))
    await console.end(ROOT, Phase.FAILED)
    page = await console.see(PAGE)
    assert "Attempt 31 Failed" in page.text
    assert "Attempt 12 Failed" in page.text
    assert "Attempt 11 " not in page.text
    assert "11 earlier ones are not shown." in page.text
