"""The SDK's console script ``a0``, with one difference: local files become data. Run by path in the task's interpreter.

Where raw data lies in a bucket, ``File.from_local`` and ``Dir.from_local`` upload. Where it lies in a directory the SDK keeps
the path that it is given, as fits a program on its own: but here others read it, later, when the task's temporary directory is
gone or the user's file has changed. So a call that names no destination gets the place below the attempt's raw data that the
SDK chooses for uploads, and what would have been uploaded is copied there.

Forked and plain tasks run this same file. Standard library only, imports nothing of ours. An SDK whose functions look different
is left as it is.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs time, and this file runs where a task's start is measured
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def copy_local_files() -> None:
    """Have ``from_local`` and ``from_local_sync`` of the SDK's files and directories copy."""
    import inspect

    try:
        from flyte.io import Dir, File

        for kind, copied in ((Dir, _tree), (File, _file)):
            blocking, waiting = (list(inspect.signature(f).parameters) for f in (kind.from_local_sync, kind.from_local))
            if blocking == waiting and blocking[:2] == ["local_path", "remote_destination"]:
                _wrap(kind, copied)
    except (ImportError, AttributeError):  # an SDK of another shape
        pass


def _wrap(kind: Any, copied: Callable[..., Any]) -> None:
    import asyncio
    import functools

    blocking, waiting = kind.__dict__["from_local_sync"].__func__, kind.__dict__["from_local"].__func__

    @functools.wraps(blocking)
    def from_local_sync(cls: Any, local_path: Any, remote_destination: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if remote_destination is None and (place := _place(local_path)) is not None:
            return copied(blocking, cls, local_path, place, *args, **kwargs)
        return blocking(cls, local_path, remote_destination, *args, **kwargs)

    @functools.wraps(waiting)
    async def from_local(cls: Any, local_path: Any, remote_destination: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if remote_destination is None and (place := _place(local_path)) is not None:  # the SDK's own would read it whole
            return await asyncio.to_thread(copied, blocking, cls, local_path, place, *args, **kwargs)
        return await waiting(cls, local_path, remote_destination, *args, **kwargs)

    kind.from_local_sync, kind.from_local = classmethod(from_local_sync), classmethod(from_local)


def _file(blocking: Any, cls: Any, local_path: Any, place: str, *args: Any, **kwargs: Any) -> Any:
    """The SDK copies to a destination that is named, and hashes on the way."""
    return blocking(cls, local_path, place, *args, **kwargs)


def _tree(blocking: Any, cls: Any, local_path: Any, place: str, *args: Any, **kwargs: Any) -> Any:
    """The SDK would stop at a link to nothing, or at a pipe; of a directory that it is given it keeps the path."""
    import shutil

    copy = os.path.basename(os.path.dirname(place))  # a name like no other: raw data may lie in what is copied
    shutil.copytree(local_path, place, ignore=lambda directory, names: [copy, *_not_uploaded(directory, names)])
    return blocking(cls, place, None, *args, **kwargs)


def _not_uploaded(directory: str, names: list[str]) -> list[str]:
    """What an upload to a bucket leaves out: links to directories and to nothing, pipes, sockets."""
    paths = {name: os.path.join(directory, name) for name in names}
    return [n for n, path in paths.items() if not os.path.isfile(path) and (os.path.islink(path) or not os.path.isdir(path))]


def _place(local_path: Any) -> str | None:
    """Where a copy of ``local_path`` goes; None outside of a task, and where raw data lies in a bucket."""
    from flyte._context import internal_ctx

    context = internal_ctx()
    if not context.has_raw_data or "://" in context.raw_data.path:
        return None
    place: str = context.raw_data.get_random_remote_path(os.path.basename(os.path.abspath(local_path)))
    return place


if __name__ == "__main__":
    scripts = os.path.dirname(sys.executable)
    if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):  # not so with PYTHONSAFEPATH
        sys.path[0] = scripts
    sys.argv[0] = os.path.join(scripts, "a0")
    from flyte._bin.runtime import main

    copy_local_files()
    sys.exit(main())
