"""The whole suite, in four pytest processes side by side: ``python -m tests.lanes``, and whatever pytest takes as options.

Tests wait for something half of their time, so four at once keep two processors busy. A job is some directories or files;
whichever lane is free takes the next one. What no job names is a job, too, so nothing is left out. What pytest says of a job is
shown when the job has ended: all of it if it failed, otherwise without its dots.

A few tests that failed are run once more, alone: some hold servers, pods and clients to times that a neighbour may cost them.
What fails again has failed; what passes then is told as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANES = 4


def _files(pattern: str) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)))


JOBS = (
    ("tests/cluster",),
    _files("tests/sdk/test_[a-d]*.py"),
    _files("tests/sdk/test_[!a-d]*.py"),
    ("tests/edge", "tests/console"),
    ("tests/contract/kube",),
    ("tests/contract/database", "tests/upgrade"),
    ("tests/unit/processes", "tests/unit/executor"),
)
"""The longest come first, so that the lanes end at about the same time."""
_NO_TESTS = 5
"""pytest's exit code where it found none, as with ``-k``."""
_AGAIN = 8
"""Failures beyond which nothing is run once more."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+\.py::.+?)(?: - .*)?$")
_DOTS = re.compile(r"^[.sxXFE]*\s*(\[ *\d+%\])?$")
_COUNT = re.compile(r"(\d+) (passed|failed|error|skipped|xfailed|xpassed)s?\b")
_CLOSING = re.compile(
    r"^(=+ )?(\d+ (passed|failed|error|skipped|deselected|xfailed|xpassed|warning)|no tests ran).* in [\d.]+s"
)


def whole(tests: str = "tests") -> list[tuple[str, ...]]:
    """Every job, and one for what they leave: it is the second longest."""
    rest = tuple(f"--ignore={name}" for job in JOBS for name in job)
    return [*JOBS[:1], (tests, *rest), *JOBS[1:]]


class Lanes:
    """``run`` answers with the exit code of them all."""

    def __init__(self, jobs: Sequence[tuple[str, ...]], options: Sequence[str], *, directory: Path) -> None:
        self._jobs = deque(enumerate(jobs))
        self._options = options
        self._directory = directory
        self._running: set[asyncio.subprocess.Process] = set()
        self._counts: Counter[str] = Counter()
        self._worst = 0
        self._found = False
        self._interrupted = False
        self._failed: list[str] = []
        self._repeatable = True

    async def run(self, lanes: int = LANES) -> int:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt)
        await asyncio.gather(*(self._lane() for _ in range(lanes)))
        if self._repeatable and not self._interrupted and 0 < len(self._failed) <= _AGAIN:
            await self._once_more()
        others = [f"{self._counts[what]} {what}" for what in ("error", "skipped", "xfailed", "xpassed") if self._counts[what]]
        told = [f"{self._counts['passed']} passed", f"{self._counts['failed']} failed", *others]
        _say(f"{', '.join(told)} in {time.monotonic() - began:.0f} s")
        return self._worst or (0 if self._found else _NO_TESTS)

    async def _once_more(self) -> None:
        failed, self._failed = list(dict.fromkeys(self._failed)), []
        _say(f"once more, alone: {len(failed)} of them")
        self._worst, self._counts["failed"], self._counts["error"] = 0, 0, 0
        self._jobs.append((len(JOBS) + 1, tuple(failed)))
        await self._lane()

    def _interrupt(self) -> None:
        """Once to each: pytest then ends what its tests started."""
        self._interrupted = True
        self._jobs.clear()
        self._worst = self._worst or 128 + signal.SIGINT
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)

    async def _lane(self) -> None:
        while self._jobs:
            number, job = self._jobs.popleft()
            # Below a group of its own, so that Ctrl-C at a terminal reaches it once, through us.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pytest", "--color=no", f"--basetemp={self._directory / str(number)}"),
                *(*job, *self._options),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
            )
            self._running.add(process)
            if self._interrupted:  # while this one came into being
                process.send_signal(signal.SIGINT)
            output, _ = await process.communicate()
            self._running.discard(process)
            self._tell(job, output.decode(errors="replace"), process.returncode or 0)

    def _tell(self, job: tuple[str, ...], output: str, code: int) -> None:
        parts = [part for part in job if not part.startswith("-")]
        name = " ".join(parts if len(parts) < 4 else [parts[0], "to", parts[-1]])
        lines = output.splitlines()
        closing = next((line for line in reversed(lines) if _CLOSING.match(line)), "")
        for count, what in _COUNT.findall(closing):
            self._counts[what] += int(count)
        if not closing:  # it died, or could not begin
            self._counts["error"] += 1
        self._found |= code != _NO_TESTS
        good = bool(closing) and code in (0, _NO_TESTS)  # a test may end the process with code 0, too
        if not good:
            self._failed += [found[1] for line in lines if (found := FAILED.match(line))]
            self._repeatable &= bool(closing) and code == 1
            self._worst = self._worst or (code if code > 0 else 1)
        shown = [line for line in lines if not _DOTS.match(line)] if good else lines
        end = "" if closing else f"\npytest ended with code {code} and no closing line"
        _say("\n".join([name, *(f"  {line}" for line in shown)]) + end)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fu-lanes-", dir=Path("/tmp").resolve(), ignore_cleanup_errors=True) as directory:
        lanes = int(os.environ.get("TEST_LANES", LANES))
        code = asyncio.run(Lanes(whole(), sys.argv[1:], directory=Path(directory)).run(lanes))
    sys.exit(code)


if __name__ == "__main__":
    main()
