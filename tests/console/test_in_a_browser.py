"""What people see of the console, in a real browser, through the real port and under its policy."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import ActionType, Failure, Move, Retry
from tests.console.conftest import Tab
from tests.unit.console.conftest import ROOT, Console

PAGE = "/v2/domain/development/project/flytesnacks/runs/rfirst"
SHOTS = os.environ.get("CONSOLE_SCREENSHOTS")
"""A directory to keep the screenshots in, for people to look at."""

LOWEST_CONTRAST = """(() => {
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = numbers(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let lowest = [99, ""];
  for (let node; node = walker.nextNode();) {
    if (!node.data.trim()) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(node.parentElement).color)), luminance(behind(node.parentElement))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, node.data];
  }
  return lowest;
})()"""
"""The text that stands out least from what is behind it, as WCAG 2 counts it."""


async def _forecast(console: Console) -> None:
    """A run with something of everything."""
    await console.run(
        labels={"team": "forecasting", "git-sha": "9f2c1e7"}, name="forecast.main", dataset="s3://b/e", horizon=28
    )
    await console.ledger.move(ROOT, Move(to=Phase.RUNNING))
    outer = await console.child("prepare1", task="forecast.prepare", rows=10)
    await console.end(await console.child("shard1", parent="prepare1", task="forecast.load_shard"), seconds=3)
    await console.end(outer, seconds=1)
    fit = await console.child("fit1", task="forecast.fit", alpha=3)
    error = execution_pb2.ExecutionError(
        code="ValueError", message="alpha is out of range", kind=execution_pb2.ExecutionError.USER
    )
    await console.ledger.move(fit, Retry(attempt=1, error=error, failure=Failure.USER))
    await console.end(fit, Phase.FAILED, seconds=4)
    for phase in (Phase.QUEUED, Phase.INITIALIZING, Phase.ABORTED, Phase.TIMED_OUT):
        key = await console.child(f"sim-{phase.name.lower()}", task="forecast.simulate")
        await console.ledger.move(key, Move(to=phase, reason="not needed"))
    condition = run_definition_pb2.ConditionAction(name="release", prompt="Release it?")
    await console.note("release", ActionType.CONDITION, spec=condition.SerializeToString(), phase=Phase.PAUSED)
    console.clock.pass_(5)


def _complaints(tab: Tab) -> list[object]:
    """What the browser refused or could not do: our policy is violated by a page that needs more than it allows."""
    return [event["params"] for event in tab.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]


@pytest.mark.parametrize(("width", "dark"), list(product((1280, 390), (False, True))), ids=str)
async def test_pages_are_readable(console: Console, site: str, tab: Tab, width: int, dark: bool) -> None:
    """On a desk and on a phone, light and dark: styled under our policy, of enough contrast, and not wider than the screen."""
    await _forecast(console)
    paths = {
        "runs": "/v2?",
        "run": f"{PAGE}?",
        "failed": f"{PAGE}?i=fit1",
        "condition": f"{PAGE}?i=release",
        "missing": f"{PAGE}x?",
    }
    shots = set()
    for name, path in paths.items():
        await tab.open(f"{site}{path}&live=off", width=width, dark=dark)
        ratio, text = await tab.evaluate(LOWEST_CONTRAST)
        assert ratio >= 4.5, f"{name}: {text!r} has a contrast of {ratio:.2f}"
        assert await tab.evaluate("document.scrollingElement.scrollWidth") <= width, name
        shots.add(shot := await tab.screenshot())
        if SHOTS:
            Path(SHOTS, f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(shot)
        if name != "missing":  # whose status is one of the browser's complaints
            assert _complaints(tab) == []
    assert len(shots) == len(paths)


async def test_what_a_reader_sees(console: Console, site: str, tab: Tab) -> None:
    """Phases have names beside colours; what belongs to readers of the screen alone is not shown."""
    await _forecast(console)
    await tab.open(f"{site}{PAGE}?live=off")
    seen = await tab.visible()
    for text in (
        "main Running",
        "team forecasting",
        "prepare prepare1 Succeeded",
        "load_shard shard1 Succeeded",
        "fit fit1 Failed",
    ):
        assert text in seen, text
    for hidden in (".skip", "caption", "th .hidden"):
        assert await tab.evaluate(f"document.querySelector('{hidden}').getBoundingClientRect().width") <= 1, hidden
    drawn = "document.querySelectorAll('svg rect').length && document.querySelector('svg rect').getBoundingClientRect().width"
    assert await tab.evaluate(drawn) > 0
    await tab.evaluate("[...document.querySelectorAll('a')].find(link => link.innerText === 'fit').click()")
    await tab.loaded()
    assert "fit Failed" in await tab.visible()
    assert "alpha is out of range" not in await tab.visible()
    await tab.evaluate("document.querySelectorAll('summary')[1].click()")
    assert "ValueError alpha is out of range" in await tab.visible()


async def test_a_live_page_follows_its_run(console: Console, site: str, tab: Tab) -> None:
    """Without anybody's doing the page of a running run shows its end."""
    await console.run()
    await tab.open(f"{site}{PAGE}")
    await console.end(ROOT)
    while "main Succeeded" not in await tab.visible():
        await tab.loaded()


async def test_a_log_is_shown_while_it_is_written(console: Console, site: str, tab: Tab) -> None:
    """Lines are there before the attempt's end, and markup in them is text."""
    await console.run()
    console.lines.texts[ROOT, 1] = ["<b>one</b>\n"]
    await tab.show(f"{site}{console.pages.log_link(ROOT, 1)}")
    await tab.event("Network.dataReceived")
    console.lines.texts[ROOT, 1].append("two\n")
    await console.end(ROOT)
    await tab.event("Page.loadEventFired")
    assert await tab.visible() == "<b>one</b> two"


async def test_hostile_content_does_nothing(console: Console, site: str, tab: Tab) -> None:
    """Markup in names and values is seen as text, and no script of it runs."""
    hostile = "</style><script>document.title = 'owned'</script><img src=/owned onerror=\"document.title='owned'\">"
    await console.run(name=hostile, labels={hostile: hostile}, **{hostile: hostile})
    await tab.open(f"{site}{PAGE}?live=off")
    assert await tab.evaluate("document.scripts.length + document.images.length") == 0
    assert (await tab.visible()).count("<script>document.title = 'owned'</script>") >= 5
    assert await tab.evaluate("document.title") != "owned"
    assert _complaints(tab) == []
