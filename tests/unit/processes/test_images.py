"""What a task's image means to its process: an environment that was built, or a name, of which people are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from flyte_unified.launchers.api import INTERPRETER, Unlaunchable
from flyte_unified.launchers.processes.images import Images, lay_out, variables_of
from flyte_unified.plugins.api import Process, Resources

PYTHON = Path("/usr/bin/python")


@dataclass(frozen=True)
class Made:
    python: Path = Path("/images/1/bin/python")
    variables: tuple[tuple[str, str], ...] = (("COLOUR", "white"), ("PATH", "/snow:$PATH"))
    files: Path = Path("/images/1/files")


def process(image: str, **environment: str) -> Process:
    return Process(arguments=("a0",), environment=environment, system={}, resources=Resources(), image=image)


def test_an_image_that_was_built_here_is_found() -> None:
    """By its address; its variables refer to the machine's."""
    made = Images({"local/snow:1": Made()}.get).of(process("local/snow:1"))
    assert made == Made()
    variables = {"COLOUR": "white", "PATH": "/snow:/bin", "VIRTUAL_ENV": "/images/1"}
    assert variables_of(made, {"PATH": "/bin"}) == variables


def test_an_image_that_is_gone_is_refused() -> None:
    """To run in another environment than the user's would be worse; the way out is named."""
    with pytest.raises(Unlaunchable, match=r"local/snow:1 is not on this machine.*builder: remote"):
        Images({}.get).of(process("local/snow:1"))


@pytest.mark.parametrize("image", ["", "auto", "ghcr.io/flyteorg/flyte:py3.12-v2.12.1"])
def test_other_images_are_names(image: str) -> None:
    """And so are all where nothing is built."""
    assert Images({}.get).of(process(image)) is None
    assert Images(None).of(process("local/snow:1")) is None


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("", ""),
        ("auto", ""),
        ("local/snow:1", ""),
        ("ghcr.io/flyteorg/flyte:py3.12-v2.12.1", ""),
        ("ghcr.io/flyteorg/flyte:py3.13-v2.12.1", "has Python 3.13, and this task runs in /usr/bin/python (Python 3.12)"),
        ("ghcr.io/acme/tool:7", "is not used on this machine: the task runs in /usr/bin/python (Python 3.12)"),
    ],
)
def test_what_people_are_told(image: str, said: str) -> None:
    """Where a task runs, if that may be a surprise; to one who chose the interpreter it is none."""
    images = Images({}.get)
    note = images.note(process(image), (3, 12, 1), PYTHON)
    assert said in note
    assert bool(said) == bool(note)
    assert not images.note(process(image, **{INTERPRETER: "/opt/python"}), (3, 12, 1), PYTHON)


def test_files_are_copies(tmp_path: Path) -> None:
    """A task may change what it finds; what another attempt finds is as before."""
    files, place = tmp_path / "files", tmp_path / "attempt"
    (files / "in").mkdir(parents=True)
    (files / "in" / "notes.txt").write_text("cold")
    lay_out(Made(files=files), place)
    (place / "in" / "notes.txt").write_text("warm")
    assert (files / "in" / "notes.txt").read_text() == "cold"
    (tmp_path / "none").mkdir()
    lay_out(Made(files=tmp_path / "none"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
