"""The server's speed as a table: ``python -m tests.benchmarks.run``.

Rates are of this machine, with the client on it; ratios taken in one run say more. Floors are what a backend that stores
nothing reaches with the same client.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from statistics import median

from tests.benchmarks import api, pages
from tests.benchmarks.cluster import Costs, costs, held
from tests.benchmarks.harness import ROOT, Server, server
from tests.benchmarks.lists import LISTS
from tests.benchmarks.played import APART, Pace
from tests.benchmarks.statements import per_action
from tests.databases import clear
from tests.postgres import MISSING, running

_MB = 1_000_000
_WARM_UP = ("one", "one", "one")
_CASES = (*_WARM_UP, *("one",) * 5, *("chain",) * 3, "fan", "leaves")


def main() -> None:
    row("what", "measured", "goal", "floor")
    row("---", "---", "---", "---")
    ready = [_ready() for _ in range(5)]
    row("ready, fresh data directory", f"{median(seconds for seconds, _ in ready):.2f} s", "1.0 s", "")
    row("memory when ready", f"{median(rss for _, rss in ready) / _MB:.0f} MB", "150 MB", "")
    with server() as idle:
        row("CreateRun, durable", f"{median(_creates(idle)):.0f} /s", "500 /s", "")
        row("Enqueue, durable", f"{median(_enqueues(idle)):.0f} /s", "1000 /s", "")
    with server() as fresh:
        row("memory per 10,000 finished actions", f"{_growth(fresh) / _MB:.1f} MB", "15 MB", "")
    _pages()
    _statements()
    _cluster()
    _programs()


def _pages() -> None:
    """Of all runs at any depth, and of what is rarest, which is looked for among all of them."""
    with server(prepare=pages.history) as target:
        asyncio.run(pages.pages(target, "timed out"))  # the first call of all
        whole = sorted(asyncio.run(pages.pages(target, "all, newest first")))
        rare = max(asyncio.run(pages.pages(target, name))[0] for name in LISTS)
    row("a page of 100 of 100,000 runs", f"{median(whole) * 1000:.0f} ms", "50 ms", "")
    row("... 99 of 100 pages, at any depth", f"{whole[len(whole) * 99 // 100] * 1000:.0f} ms", "50 ms", "")
    row("... the first of the slowest filter", f"{rare * 1000:.0f} ms", "50 ms", "")


def _statements() -> None:
    """The database's share of 100 actions at once, all in step and in ten groups, each a step behind the other."""
    if MISSING:
        return
    with running() as postgres:
        counts = [asyncio.run(per_action(postgres.url(), count=100))]
        asyncio.run(clear(postgres.url()))
        counts.append(asyncio.run(per_action(postgres.url(), count=100, groups=10)))
    row("statements to Postgres for each action", " - ".join(f"{count:.1f}" for count in counts), "4", "")


def _cluster() -> None:
    """A cluster's server over played pods: its fake API server shares the machine with it, and is the slower of the two."""
    if MISSING:
        return
    with running() as postgres:

        def measured(count: int, pace: Pace) -> Costs:
            asyncio.run(clear(postgres.url()))
            return asyncio.run(costs(postgres.url(), count=count, pace=pace))

        row("a child as an instant pod, Enqueue to end", f"{measured(1, Pace()).seconds:.2f} s", "", "")
        row("instant pods, 100 at once", f"{100 / measured(100, Pace()).seconds:.0f} /s", "", "")
        row("instant pods, 1,000 at once", f"{1000 / measured(1000, Pace()).seconds:.0f} /s", "", "")
        apart = measured(100, APART)
        row("writes of each pod's TaskAction to its end", f"{apart.creates + apart.statuses:.1f}", "4", "")
        row("statements of each pod, no two in step", f"{apart.statements:.1f}", "4", "")
        asyncio.run(clear(postgres.url()))
        live = asyncio.run(held(postgres.url(), count=10_000, idle=60.0))
        row("memory with 10,000 live pods", f"{live.rss / _MB:.0f} MB", "400 MB", "")
        row("... of the leader that follows", f"{live.rss_after / _MB:.0f} MB", "400 MB", "")
        row("... and until it leads", f"{live.taken_over:.1f} s", "", "")
        row("requests a minute while nothing happens", f"{sum(live.requests.values())}", "", "")
        row("CPU while nothing happens", f"{live.cpu:.2%}", "", "")


def _ready() -> tuple[float, int]:
    with server() as started:
        return started.ready_seconds, started.rss()


def _creates(target: Server) -> list[float]:
    return [asyncio.run(api.create_rate(target, 1000, f"c{number}x")) for number in range(3)]


def _enqueues(target: Server) -> list[float]:
    return [asyncio.run(api.enqueue_rate(target, 2000, f"e{number}", timedelta(0))) for number in range(3)]


def _growth(target: Server) -> int:
    """Bytes of RSS between 1,000 and 11,000 finished actions."""
    asyncio.run(api.enqueue_rate(target, 1000, "first", timedelta(0)))
    before = target.rss()
    for number in range(2):
        asyncio.run(api.enqueue_rate(target, 5000, f"g{number}", timedelta(0)))
    return target.rss() - before


def _programs() -> None:
    with server() as warm:
        times = _client(warm, _CASES)
    with server(FLYTE_UNIFIED_EXECUTION_WARM="false") as cold:
        slow = _client(cold, ("few leaves", "few leaves"))["few leaves"][-1] / 20
    one, chain, fan = median(times["one"][len(_WARM_UP) :]), median(times["chain"]), times["fan"][0]
    row("a parent and one child", f"{one:.2f} s", "0.5 s", "0.31 s")
    row("a chain of 200 core-sleep leaves", f"{chain:.2f} s", "2.2 s", "1.4 s")
    row("a fan-out of 1,000 core-sleep leaves", f"{fan:.1f} s", "11 s", "9.6 s")
    rate = 100 / times["leaves"][0]
    row("real Python tasks", f"{rate:.1f} /s", "8 /s", "9.3 /s")
    row("... against a cold process each", f"{rate * slow:.1f} x", "5 x", "")


def _client(target: Server, cases: tuple[str, ...]) -> dict[str, list[float]]:
    """Seconds of each case, in one client process with a home of its own."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(Path(__file__).with_name("programs.py")), target.endpoint, *cases]
        environment = {**os.environ, "HOME": home, "DO_NOT_TRACK": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    for line in done.stdout.splitlines():
        told = json.loads(line)
        times[told["case"]].append(told["seconds"])
    return times


def row(*cells: str) -> None:
    sys.stdout.write(f"| {cells[0]:<40} | {cells[1]:>12} | {cells[2]:>8} | {cells[3]:>8} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
