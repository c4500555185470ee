"""What a task's image means where tasks are processes: a virtual environment if it was built here, else a name.

Flyte's own images say no more than what tasks have here anyway, so they run in the interpreter that is chosen for tasks. So do
tasks of an image of somebody else, which nobody fetches: the log says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from flyte_unified.core.images import OURS, default, expanded
from flyte_unified.launchers.api import INTERPRETER, Unlaunchable
from flyte_unified.plugins.api import Process


class Built(Protocol):
    """An image as a virtual environment."""

    @property
    def python(self) -> Path:
        """Its interpreter."""

    @property
    def variables(self) -> Sequence[tuple[str, str]]:
        """In order: a later one may refer to those before as ``$NAME``."""

    @property
    def files(self) -> Path:
        """A directory of what the working directory holds when a task starts."""


Lookup = Callable[[str], Built | None]


class Images:
    """``lookup`` finds what was built here, by a file or two. None: nothing is, and all images are names."""

    def __init__(self, lookup: Lookup | None) -> None:
        self._lookup = lookup

    def of(self, work: Process) -> Built | None:
        """Raises Unlaunchable for an image that was built here, and is gone."""
        if self._lookup is None or not work.image.startswith(OURS):
            return None
        if (found := self._lookup(work.image)) is None:
            raise Unlaunchable(
                "ImageNotFound",
                f"the image {work.image} is not on this machine, or no longer: run or deploy the task again, and the SDK has "
                "it built (image.builder: remote in its configuration)",
            )
        return found

    def note(self, work: Process, version: tuple[int, ...], interpreter: Path) -> str:
        """What its user should know of an image that is only a name; empty where that is no news."""
        if work.image in ("", "auto") or work.image.startswith(OURS) or work.environment.get(INTERPRETER):
            return ""
        python = ".".join(map(str, version[:2]))
        known = default(work.image)
        if known is None:
            return f"the image {work.image} is not used on this machine: the task runs in {interpreter} (Python {python})"
        if known.python != python:
            return (
                f"the image {work.image} has Python {known.python}, and this task runs in {interpreter} (Python {python}). "
                "With a layer of its own, say .with_env_vars({}), the image is built here with the Python that it asks for"
            )
        return ""


def variables_of(image: Built | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What tasks of an image have in their environment, over ``environ``."""
    if image is None:
        return {}
    return {**expanded(image.variables, environ), "VIRTUAL_ENV": str(image.python.parent.parent)}


def lay_out(image: Built, directory: Path) -> None:
    """The image's files in a task's own directory: copies, as a task may change what it has."""
    if any(image.files.iterdir()):
        shutil.copytree(image.files, directory, symlinks=True, dirs_exist_ok=True)
