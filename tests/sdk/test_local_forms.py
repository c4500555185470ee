"""Tasks that an operator spreads over machines, on one: clustered tasks with launchers that stand in for torchrun.

What the real libraries make of it is another suite's to show, as they are large: test_libraries.py.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.sdk.conftest import Client, Said

STANDINS = Path(__file__).parent / "standins"


@pytest.fixture(scope="module")
def said(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    return client.say("ranks", str(STANDINS), str(tmp_path_factory.mktemp("ranks")))


def test_all_ranks_of_all_nodes_run_here(said: dict[str, Said]) -> None:
    """On one node, each knowing its place; what rank 0 returns is the task's."""
    told = said["torch_ranks"]
    assert told["outputs"] == [[f"{rank} 4 {rank} 0 1 127.0.0.1" for rank in range(4)]], told["message"]


def test_jax_has_a_process_for_each_of_its_nodes(said: dict[str, Said]) -> None:
    """As it has no launcher that would start several."""
    assert said["jax_ranks"]["outputs"] == [[f"{rank} 2 0 {rank} 2 127.0.0.1" for rank in range(2)]]


def test_a_rank_that_fails_takes_all_along(said: dict[str, Said]) -> None:
    """At its author's cost: rank 0 with its own words, another with a look at the log."""
    told = said["jax_fails"]
    assert (told["phase"], told["code"], told["kind"]) == ("FAILED", "ValueError", 1)
    assert "rank 0 tells its own error" in told["message"]
    other = said["fails"]
    assert (other["phase"], other["code"], other["kind"]) == ("FAILED", "WorkersFailed", 1)


def test_all_begin_again_as_often_as_the_task_allows(said: dict[str, Said]) -> None:
    """Within one attempt."""
    told = said["again"]
    assert (told["phase"], told["outputs"], len(told["attempts"])) == ("SUCCEEDED", [1], 1)


def test_an_abort_ends_every_rank(said: dict[str, Said]) -> None:
    """Whatever started them."""
    assert said["held"]["phase"] == "ABORTED"
    run = said["held"]["run"]
    left = [process for process in psutil.process_iter(["cmdline"]) if run in " ".join(process.info["cmdline"] or ())]
    assert left == []


def test_without_the_library_it_is_said_what_to_install(said: dict[str, Said]) -> None:
    """Before anything runs."""
    told = said["missing"]
    assert (told["phase"], told["code"], told["kind"]) == ("FAILED", "MissingLibrary", 1)
    assert "the task needs the module 'torch'" in told["message"]
    assert "uv pip install" in told["message"]
