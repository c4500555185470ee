"""The runner of the whole suite, on small files in place of the suite."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.lanes import FAILED, JOBS, ROOT, Lanes, whole

FILES = {
    "good": "def test_a(): pass\ndef test_b(): pass\n",
    "bad": "import pytest\ndef test_c(): assert 0, 'the reason'\n@pytest.mark.skip\ndef test_d(): pass\n",
    "dead": "import os\ndef test_e(): os._exit(3)\n",
    "silent": "import os\ndef test_g(): os._exit(0)\n",
    "torn": "import pytest\n@pytest.fixture\ndef f():\n    yield\n    assert 0\ndef test_f(f): pass\n",
    "none": "",
}


async def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str], *names: str) -> tuple[int, list[str]]:
    """The exit code, and the lines."""
    for name in names:
        (tmp_path / f"test_{name}.py").write_text(FILES[name])
    lanes = Lanes([(str(tmp_path / f"test_{name}.py"),) for name in names], [], directory=tmp_path)
    code = await lanes.run()
    return code, capsys.readouterr().out.splitlines()


async def test_all_lanes_have_one_closing_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It adds up what every job told; what a failed test said is shown, and decides the exit code."""
    code, lines = await ran(tmp_path, capsys, "good", "bad", "torn", "none")
    assert code == 1
    assert lines[-1].startswith("3 passed, 1 failed, 1 error, 1 skipped in ")
    assert sum("the reason" in line for line in lines) >= 1
    assert sum(re.search(r" in [\d.]+s", line) is not None for line in lines[:-1]) == 4


@pytest.mark.parametrize(("name", "status"), [("dead", 3), ("silent", 0)])
async def test_a_pytest_that_dies_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, status: int
) -> None:
    """Though it told of no failure, and the other lane of none either; its exit code may even be 0."""
    code, lines = await ran(tmp_path, capsys, name, "good")
    assert code == (status or 1)
    assert lines[-1].startswith("2 passed, 0 failed, 1 error in ")
    assert f"pytest ended with code {status} and no closing line" in lines


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("FAILED tests/a/test_b.py::test_c - AssertionError: ...", "tests/a/test_b.py::test_c"),
        ("FAILED tests/a/test_b.py::test_c[x y] - assert 1 - 1", "tests/a/test_b.py::test_c[x y]"),
        ("ERROR tests/a/test_b.py::test_c", "tests/a/test_b.py::test_c"),
        ("ERROR tests/a/test_b.py - ImportError", None),
        ("  FAILED to connect", None),
    ],
)
def test_what_is_run_once_more(line: str, name: str | None) -> None:
    """The tests that pytest names as failed; a file that can't be imported is no test."""
    found = FAILED.match(line)
    assert (found[1] if found else None) == name


async def test_no_test_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lane may be empty, as with ``-k``; all of them may not."""
    code, lines = await ran(tmp_path, capsys, "none")
    assert code == 5
    assert lines[-1].startswith("0 passed, 0 failed in ")


LONG = """
import time, pytest
from pathlib import Path

@pytest.fixture(scope="session")
def held():
    yield
    Path({down!r}).touch()

def test_h(held):
    Path({fifo!r}).write_text("up")
    time.sleep(60)
"""
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.lanes import Lanes
sys.exit(asyncio.run(Lanes([(sys.argv[1],)] * 3, [], directory=Path(sys.argv[1]).parent).run(1)))
"""


async def test_an_interrupt_ends_what_tests_started(tmp_path: Path) -> None:
    """One signal is enough, begins no other job, and reaches pytest even where a shell had it ignored."""
    fifo, down, test = tmp_path / "fifo", tmp_path / "down", tmp_path / "test_long.py"
    os.mkfifo(fifo)
    test.write_text(LONG.format(fifo=str(fifo), down=str(down)))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(test)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert await asyncio.to_thread(fifo.read_text) == "up"
    runner.send_signal(signal.SIGINT)
    output, _ = await runner.communicate()
    assert runner.returncode == 130, output.decode()
    assert down.exists()
    assert output.decode().count("KeyboardInterrupt !!") == 1


def test_nothing_is_left_out() -> None:
    """Every job is there, and one takes all that is in no other."""
    ((tests, *ignored),) = [job for job in whole() if job not in JOBS]
    assert {*JOBS} < {*whole()}
    assert all((ROOT / name).exists() for job in JOBS for name in job)
    assert {name for job in JOBS for name in job} >= {f"tests/sdk/{path.name}" for path in ROOT.glob("tests/sdk/test_*.py")}
    assert tests == "tests"
    assert {f"--ignore={name}" for job in JOBS for name in job} == set(ignored)
