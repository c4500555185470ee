"""How a run wants to run: what its tasks have of it, what is kept of it, and how many of them compute at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_unified.testing import Backend
from tests.sdk.conftest import SETTINGS, Client, Said
from tests.sdk.forks import Forks

Span = list[float]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specified")


@pytest.fixture(scope="module")
def user(place: Path, forks: Forks) -> Iterator[Client]:
    settings = {**SETTINGS, "queues.max_concurrency": ("narrow=1", "wide"), "storage.root": str(place / "storage")}
    with Backend(settings) as backend:
        yield Client(backend, place / "home", "flytesnacks", forks=forks)


@pytest.fixture(scope="module")
def said(user: Client, place: Path) -> dict[str, Said]:
    return user.say("specified", str(place / "raw"), str(place / "storage" / "mine"), "builder")


def test_variables_reach_every_task(said: dict[str, Said], place: Path) -> None:
    """A run's go over a task's own. Data of its own, and the run's files, are where the run says."""
    ((of_task, of_run, of_both, raw, base),) = said["all"]["outputs"]
    assert (of_task, of_run, of_both) == ("task", "run", "run")
    assert raw.startswith(f"{place}/raw/")
    assert base.startswith(f"{place}/storage/mine/")


def test_all_of_it_is_kept(said: dict[str, Said]) -> None:
    """What a laptop has no use for (a service account, whether it may be interrupted), too."""
    kept = said["kept"]
    assert kept["labels"] == {"team": "red"}
    assert kept["annotations"] == {"why": "because"}
    assert (kept["interruptible"], kept["account"]) == (True, "builder")
    assert (kept["queue"], kept["concurrency"]) == ("narrow", 4)
    assert said["listed"]["runs"] == [[said["all"]["run"], {"team": "red"}]]


def test_a_run_computes_no_more_at_once_than_it_wants(said: dict[str, Said]) -> None:
    """Two of six, although there are slots for eight; their parent, which waits for them, counts for none."""
    assert peak(said["bounded"]["outputs"][0]) == 2


def test_a_queue_is_shared_in_turns(said: dict[str, Said]) -> None:
    """One action of both runs at a time; neither run waits until the other is over."""
    one, two = (said[f"narrow {number}"]["outputs"][0] for number in range(2))
    assert peak([*one, *two]) == 1
    assert min(two)[0] < max(one)[1]
    assert min(one)[0] < max(two)[1]


def test_an_unknown_queue_is_refused(user: Client, said: dict[str, Said]) -> None:
    """With the names of those that there are."""
    assert "there is no queue 'narow'; known are default, narrow, wide" in said["unknown queue"]["error"]
    assert "there is no queue 'gup'" in user.flyte("run", "--queue", "gup", "specified.py", "leaf", "--number", "1", fails=True)


def peak(spans: list[Span]) -> int:
    """How many there were at the same time."""
    steps = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    return max(sum(step for _, step in steps[: n + 1]) for n in range(len(steps)))
