"""Files that a task makes where they do not stay: in a temporary directory, or in a place that is written again."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import flyte
from flyte.io import Dir, File, HashFunction
from speak import say

env = flyte.TaskEnvironment(name="copied")
TEXTS = {"one.txt": "first", "below/two.txt": "second"}


@env.task
async def shortlived(blocking: bool) -> tuple[File, Dir]:
    """The directory is gone when this returns."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "made"
        for name, text in TEXTS.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if blocking:
            return File.from_local_sync(root / "one.txt"), Dir.from_local_sync(str(root))
        return await File.from_local(str(root / "one.txt")), await Dir.from_local(root)


@env.task
async def read(file: File, folder: Dir) -> dict[str, str]:
    """What another task finds in them."""
    found = {"file": Path(await file.download()).read_text()}
    root = Path(await folder.download())
    return found | {name: (root / name).read_text() for name in TEXTS}


@env.task
async def passed_on(blocking: bool) -> tuple[File, Dir, dict[str, str], int]:
    """Files of another task, read by a third, and how many copies this one made of them."""
    file, folder = await shortlived(blocking)
    found = await read(file, folder)
    mine = Path(flyte.ctx().raw_data_path.path)
    return file, folder, found, len(list(mine.rglob("*")))


@env.task
async def changed(place: str) -> File:
    """The same place in every run, as ``model.bin`` in somebody's home."""
    Path(place).write_text(str(os.getpid()))
    return await File.from_local(place)


@env.task
async def relative() -> tuple[Dir, File]:
    """The working directory itself, with things in it that are no files, and a file that is named from there."""
    Path("here.txt").write_text("here")
    Path("link.txt").symlink_to("here.txt")
    Path("nowhere").symlink_to("missing")
    Path("again").symlink_to(".")
    os.mkfifo("pipe")
    return await Dir.from_local("."), File.from_local_sync("here.txt")


@env.task
async def surrounding() -> Dir:
    """The place of the copies themselves."""
    raw = Path(flyte.ctx().raw_data_path.path)
    raw.mkdir(parents=True)
    (raw / "kept.txt").write_text("kept")
    return await Dir.from_local(raw)


@env.task
async def started() -> tuple[str, list[str]]:
    return sys.argv[0], [path for path in sys.path if "launchers" in path]


@env.task
async def hashed(blocking: bool) -> File:
    path = Path(tempfile.mkdtemp()) / "hashed.txt"
    path.write_text("hashed")
    method = HashFunction.from_fn(lambda data: f"{len(data)} bytes")
    if blocking:
        return File.from_local_sync(path, hash_method=method)
    return await File.from_local(path, hash_method=method)


def content(file: File) -> str:
    with file.open_sync("rb") as opened:
        return bytes(opened.read()).decode()


def through(case: str, *, blocking: bool) -> None:
    run = flyte.run(passed_on, blocking=blocking)
    run.wait(quiet=True)
    file, folder, found, copies = run.outputs()
    names = {path.name: content(path) for path in folder.walk_sync()}
    say(case, file=content(file), name=Path(file.path).name, folder=names, found=found, copies=copies)


def twice(place: str) -> None:
    first = flyte.run(changed, place=place)
    first.wait(quiet=True)
    before = content(first.outputs()[0])
    second = flyte.run(changed, place=place)
    second.wait(quiet=True)
    Path(place).unlink()
    say("changed", before=before, after=content(first.outputs()[0]), second=content(second.outputs()[0]))


def finished(task: Any, **inputs: Any) -> list[Any]:
    run = flyte.run(task, **inputs)
    run.wait(quiet=True)
    return list(run.outputs())


def from_working_directory() -> None:
    folder, file = finished(relative)
    say("relative", folder=sorted(path.name for path in folder.walk_sync()), file=content(file))


def with_hashes() -> None:
    for blocking in (False, True):
        (file,) = finished(hashed, blocking=blocking)
        say(f"hashed {blocking}", content=content(file), hash=file.hash)


CASES = {
    "waiting": lambda: through("waiting", blocking=False),
    "blocking": lambda: through("blocking", blocking=True),
    "changed": lambda: twice(sys.argv[1]),
    "relative": from_working_directory,
    "surrounding": lambda: say("surrounding", folder=[path.name for path in finished(surrounding)[0].walk_sync()]),
    "started": lambda: say("started", outputs=finished(started)),
    "hashed": with_hashes,
}


if __name__ == "__main__":
    flyte.init_from_config()
    for case in sys.argv[2:]:
        CASES[case]()
