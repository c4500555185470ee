"""Files that tasks hand on are copied to where data is kept, alike from warm and from cold processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sdk.conftest import Client, Said

COLD = ("waiting", "started")
"""That the SDK's functions are replaced there, too; what they do then is the same code."""
WARM = (*COLD, "blocking", "changed", "relative", "surrounding", "hashed")
TEXTS = {"one.txt": "first", "below/two.txt": "second"}


def told(client: Client) -> dict[str, Said]:
    return client.say("copied", str(client.home / "place.txt"), *(WARM if client.warm else COLD))


@pytest.fixture
def said(client: Client) -> dict[str, Said]:
    return told(client)


def check_outlived(said: dict[str, Said], case: str) -> None:
    assert said[case]["file"] == "first"
    assert said[case]["name"] == "one.txt"
    assert said[case]["folder"] == {Path(name).name: text for name, text in TEXTS.items()}
    assert said[case]["found"] == {"file": "first", **TEXTS}


def test_a_file_outlives_the_directory_it_was_made_in(either: Client) -> None:
    """Made in a temporary directory: other tasks and the client can read it."""
    check_outlived(told(either), "waiting")


def test_so_does_one_of_the_blocking_function(said: dict[str, Said]) -> None:
    """The SDK's function has two forms."""
    check_outlived(said, "blocking")


@pytest.mark.parametrize("case", ["waiting", "blocking"])
def test_what_is_passed_on_is_not_copied_again(said: dict[str, Said], case: str) -> None:
    """A task that hands on the file of another keeps none of its own."""
    assert said[case]["copies"] == 0


def test_an_output_does_not_change_when_its_source_does(said: dict[str, Said]) -> None:
    """A later run that writes the same place again does not alter what the earlier one gave, nor does removing it."""
    changed = said["changed"]
    assert changed["before"] == changed["after"]
    assert changed["second"] != changed["before"]


def test_a_directory_is_what_would_be_uploaded(said: dict[str, Said]) -> None:
    """The task's working directory itself may be handed on: of what is in it, the files, and those that links lead to."""
    assert said["relative"]["file"] == "here"
    assert {"here.txt", "link.txt"} <= set(said["relative"]["folder"])
    assert not {"nowhere", "again", "pipe"} & set(said["relative"]["folder"])


def test_a_copy_is_not_copied_into_itself(said: dict[str, Said]) -> None:
    """A directory may hold the place where its copy is made."""
    assert said["surrounding"]["folder"] == ["kept.txt"]


def test_a_task_takes_itself_to_be_the_sdk_s_script(either: Client) -> None:
    """It sees the name of the console script, and no module of ours on its path."""
    name, ours = told(either)["started"]["outputs"]
    assert name == str(Path(sys.executable).parent / "a0")
    assert ours == []


@pytest.mark.parametrize("blocking", [False, True])
def test_a_hash_is_taken_of_what_is_copied(said: dict[str, Said], blocking: bool) -> None:
    """The method that the task gave is asked, as on the way to a bucket."""
    assert said[f"hashed {blocking}"] == {"case": f"hashed {blocking}", "content": "hashed", "hash": "6 bytes"}
