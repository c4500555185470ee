"""The promises of tests/conftest.py, proven on small test files that break them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

_CONFTEST = Path(__file__).parents[2] / "conftest.py"
_HEAD = "import asyncio, pytest, subprocess, sys, threading\n"


@pytest.fixture
def outcome(pytester: pytest.Pytester):
    """A function that runs a test file under our conftest and returns pytest's result."""
    pytester.makeconftest(_CONFTEST.read_text().replace("_PATIENCE = 2.0", "_PATIENCE = 0.05"))
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nfilterwarnings = ["error"]\n')

    def run(body: str) -> pytest.RunResult:
        pytester.makepyfile(_HEAD + body)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")

    return run


def test_a_coroutine_that_fails_fails_the_test(outcome):
    """An ``async def test_*`` is awaited, so its assertion counts."""
    outcome("async def test_x():\n    await asyncio.sleep(0)\n    assert False").assert_outcomes(failed=1)


def test_a_fixture_and_its_test_share_one_loop_and_the_fixture_is_torn_down(outcome):
    """Both halves of an async fixture run in one task of the test's own loop, even when the test fails."""
    result = outcome(
        """
        @pytest.fixture
        async def loop_of_fixture():
            task = asyncio.current_task()
            async with asyncio.TaskGroup() as group:
                yield asyncio.get_running_loop()
                group.create_task(asyncio.sleep(0))
            assert task is asyncio.current_task()
            print("torn down")

        @pytest.fixture
        async def answer():
            return 42

        async def test_good(loop_of_fixture, answer):
            assert asyncio.get_running_loop() is loop_of_fixture and answer == 42

        async def test_bad(loop_of_fixture):
            raise ValueError

        def test_synchronous(answer):
            assert answer == 42
        """.replace("\n        ", "\n")
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*torn down*"])


def test_what_is_left_behind_is_an_error(outcome):
    """A stray task, thread or process, or an error that nobody saw, fails the test that made it and no other."""
    result = outcome(
        """
        kept = []
        end = threading.Event()

        async def test_task():
            kept.append(asyncio.create_task(asyncio.sleep(9), name="stray"))

        def test_thread():
            threading.Thread(target=end.wait, name="stray", daemon=True).start()

        def test_process():
            kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))

        async def test_unread_error():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)

        def test_tidy():
            end.set()
            kept.pop().wait()
        """.replace("\n        ", "\n")
    )
    result.assert_outcomes(passed=5, errors=4)
    result.stdout.fnmatch_lines_random(["*task stray*", "*thread stray*", "*process *sleep(60)*", "*ZeroDivisionError*"])


def test_a_coroutine_nobody_awaited_is_an_error(outcome):
    """A forgotten ``await`` fails the test although its warning is raised where nobody can catch it."""
    result = outcome("async def test_x():\n    asyncio.sleep(0)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*never awaited*"])
