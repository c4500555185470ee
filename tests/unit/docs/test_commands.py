"""Pages for people who begin are followed by the letter: their commands typed, their Python run, what they show compared.

A block that cannot be run has a comment with the reason in the line above: ``<!-- not run: why -->``. The port is another one
than the pages say, and ``pip install`` has happened: what it would install is what is installed here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import pytest

import flyte_unified

ROOT = Path(__file__).parents[3]
PAGES = [
    page for page in ("README.md", "docs/quickstart.md", "docs/operations.md", "docs/cluster.md") if (ROOT / page).exists()
]
SHOWN = {
    "README.md": "greeted 2",
    "docs/operations.md": "runs begin again",
    "docs/quickstart.md": "Hello, Ada! Hello, Grace! The squares below 8 add up to 140.",
}
"""What their programs say, somewhere in what the commands print."""
PORT = "30080"
_SECONDS = 60
_BLOCK = re.compile(
    r"(?P<excuse><!-- not run: \S.*? -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each with what the page shows of its output."""
        for command in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            typed, *shown = command.splitlines()
            yield typed, shown


def blocks(page: str) -> list[Block]:
    """Those that are not excused."""
    found = _BLOCK.finditer((ROOT / page).read_text())
    return [Block(one["language"], one["text"]) for one in found if not one["excuse"]]


class Reader:
    """Somebody with an empty home, and the example program in their directory."""

    def __init__(self, directory: Path) -> None:
        self.home, self.directory = directory / "home", directory / "work"
        self.home.mkdir()
        shutil.copytree(ROOT / "examples", self.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "examples" / "hello.py", self.directory)
        self.printed = ""
        self._port = "0"
        self._run = ""
        self._server: subprocess.Popen[str] | None = None

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "FLYTE_UNIFIED_SERVER_PORT": self._port,
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def follow(self, block: Block) -> None:
        if block.language == "yaml":
            assert (self.directory / ".flyte/config.yaml").read_text() == block.text.replace(PORT, self._port)
        elif block.language == "python":
            self._python(block.text)
        else:
            for command, shown in block.commands():
                self._type(command, shown)

    def _type(self, command: str, shown: list[str]) -> None:
        if installed := re.fullmatch(r"pip install '([\w-]+)\[(\w+)\]'", command):
            assert installed[2] in metadata(installed[1]).get_all("Provides-Extra", [])
        elif command == "flyte-unified start":
            self._start(shown)
        else:
            self._call(["bash", "-c", command.replace(PORT, self._port).replace("RUN", self._run)])

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        self.printed += done.stdout
        if found := re.search(r"/runs/(r\w+)", done.stdout):
            self._run = found[1]

    def _start(self, shown: list[str]) -> None:
        self._server = subprocess.Popen(
            ["flyte-unified", "start"],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        banner = []
        for line in self._server.stdout:
            banner.append(line.rstrip("\n"))
            if line.lstrip().startswith("SDK"):
                break
        found = re.search(r"--port (\d+)", banner[-1]) if banner else None
        assert found, banner
        self._port = found[1]
        if shown:
            assert (banner[0], shown[0]) == (f"flyte-unified {flyte_unified.__version__}",) * 2
            assert [line.split()[0] for line in banner] == [line.split()[0] for line in shown]

    def _python(self, text: str) -> None:
        path = self.directory / "test_page.py"
        path.write_text(text)
        runner = ["-m", "pytest", "-p", "no:cacheprovider"] if "def test_" in text else []
        self._call([sys.executable, *runner, str(path)])

    def stop(self) -> None:
        """Ctrl-C, as the pages say."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.communicate(timeout=_SECONDS)
            assert self._server.returncode == 0

    def leave(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.kill()
            self._server.communicate()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.leave()


@pytest.mark.parametrize("page", PAGES)
def test_each_block_can_be_run(page: str) -> None:
    """Or says why not: what is neither typed nor run nor compared would be believed unseen."""
    assert {block.language for block in blocks(page)} <= ({"console", "python", "yaml"} if page in SHOWN else set())


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_can_be_followed(reader: Reader, page: str) -> None:
    """From nothing to a result, in the order of the page, and to a server that has stopped."""
    for block in blocks(page):
        reader.follow(block)
    assert SHOWN[page] in reader.printed
    assert (reader.home / ".flyte-unified").is_dir()
    reader.stop()
