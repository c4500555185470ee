"""Environments on the disk: found by name or content, used only when complete, removed when unused for longest."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from flyte_unified.images.environments import Environment, Environments

KEYS = [f"{number:032x}" for number in range(4)]
DAY = 86400.0


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    found = Environments(tmp_path)
    with found.alone(KEYS[0], waiting=lambda: None):
        return found


def make(environments: Environments, key: str, *names: str, size: int = 0, age: float = DAY) -> Environment:
    """One that has been unused for ``age`` seconds."""
    with environments.new(key) as path:
        (path / "bin").mkdir()
        (path / "bin" / "python").symlink_to(sys.executable)
        (path / "filling").write_bytes(b"x" * size)
        made = environments.add(path, key=key, variables=[("A", "1")], run="p/d/r")
    for name in names:
        environments.name(name, made)
    record = path / "image.json"
    os.utime(record, (record.stat().st_mtime - age,) * 2)
    return made


def prune(environments: Environments, *, age: float = 9 * DAY, size: int = 1 << 30, busy: Collection[str] = ()) -> list[Path]:
    return environments.prune(age=age, size=size, busy=busy)


def test_a_name_leads_to_its_environment(environments: Environments) -> None:
    """Whatever stands before it in an address; names that no file could have are names too."""
    names = ["env:1", "..", "a" * 4000, "x\0y"]
    made = make(environments, KEYS[0], *names)
    assert [environments.named(name) for name in names] == [made] * 4
    assert environments.named("localhost:5000/acme/env:1") == made
    assert environments.named("env:2") is None


def test_a_name_changes_in_one_step(environments: Environments) -> None:
    """What a build makes anew has the name; what was there before is there still."""
    before = make(environments, KEYS[0], "env:1")
    after = make(environments, KEYS[0], "env:1")
    assert environments.named("env:1") == after
    assert before.usable


def test_an_environment_that_was_not_finished_goes(environments: Environments) -> None:
    """As the build does that failed."""

    def fail() -> None:
        with environments.new(KEYS[1]) as path:
            (path / "bin").mkdir()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert environments.of(KEYS[1]) is None
    assert prune(environments) == []
    assert not list(environments.directory.joinpath("environments").iterdir())


def test_what_a_dead_build_left_goes_and_what_is_being_built_stays(environments: Environments) -> None:
    """A lock, which ends with its process, tells one from the other."""
    environments.name("env:0", make(environments, KEYS[0]))
    left = environments.directory / "environments" / f"{KEYS[1]}-00000000"
    (left / "bin").mkdir(parents=True)
    with environments.new(KEYS[2]) as path:
        prune(environments)
        assert path.exists()
    assert not left.exists()


def test_an_environment_whose_python_is_gone_is_none(environments: Environments) -> None:
    """It is built again, with one that is here."""
    made = make(environments, KEYS[0], "env:1")
    made.python.unlink()
    assert environments.named("env:1") is None
    assert environments.of(KEYS[0]) is None


def test_those_unused_for_longest_go(environments: Environments) -> None:
    """With the names that led to them; asking for one is using it."""
    old, older, oldest = (make(environments, KEYS[n], f"env:{n}", age=DAY * (n + 1)) for n in range(3))
    assert environments.named("env:2") == oldest
    assert prune(environments, age=1.5 * DAY) == [older.path]
    assert environments.named("env:1") is None
    assert environments.named("env:0") == old


def test_those_that_take_too_much_go(environments: Environments) -> None:
    """By bytes."""
    make(environments, KEYS[0], "env:0", size=1000)
    large = make(environments, KEYS[1], "env:1", size=50_000, age=2 * DAY)
    assert prune(environments, size=20_000) == [large.path]


def test_those_in_use_stay(environments: Environments) -> None:
    """Tasks run there, or may be about to: it was asked for a moment ago."""
    busy = make(environments, KEYS[0], "env:0")
    make(environments, KEYS[1], "env:1", age=0)
    assert prune(environments, age=0, busy={str(busy.path)}) == []


def test_what_is_no_environment_is_left_alone(environments: Environments) -> None:
    """A desktop leaves files of its own wherever it looks."""
    stray = environments.directory / "environments" / ".DS_Store"
    stray.touch()
    make(environments, KEYS[0], "env:0")
    assert prune(environments) == []
    assert stray.exists()


def test_a_build_that_clears_up_meanwhile_disturbs_nobody(environments: Environments, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory was there when the others were listed, and is not any more."""
    make(environments, KEYS[0], "env:0")
    left = environments.directory / "environments" / f"{KEYS[1]}-00000000"
    left.mkdir()
    opened = os.open

    def late(path: Path, flags: int) -> int:
        if path == left:
            left.rmdir()
        return opened(path, flags)

    monkeypatch.setattr(os, "open", late)
    assert prune(environments) == []
