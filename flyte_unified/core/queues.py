"""Queues: names that runs and tasks may give, and how many actions of each compute at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flyteidl2.task import run_pb2

from flyte_unified.core.errors import InvalidArgument

DEFAULT = "default"
"""The queue of actions that name none."""


class Queues:
    """``told`` names them: ``name=8``, or ``name`` where there is no bound. Raises InvalidArgument for what is neither.

    A server that knows none takes any name, so that a program can be tried where its cluster's queues are not.
    """

    def __init__(self, told: Iterable[str] = ()) -> None:
        bounds: dict[str, int] = {}
        self._names = {DEFAULT}
        for text in told:
            name, _, most = text.partition("=")
            if not name:
                raise _wrong(text)
            self._names.add(name)
            if "=" in text:
                bounds[name] = _number(text, most)
        self._any = self._names == {DEFAULT}
        self.bounds: Mapping[str, int] = bounds
        """Of those that have one"""

    def check(self, name: str, *, field: str) -> None:
        """Raises InvalidArgument naming the queues that there are; an empty name stands for the default."""
        if name and name not in self._names and not self._any:
            raise InvalidArgument(f"{field}: there is no queue {name[:64]!r}; known are {', '.join(sorted(self._names))}")

    def check_run(self, spec: run_pb2.RunSpec) -> None:
        """The same of the queue that a run names."""
        self.check(spec.queue, field="run_spec.queue")


def _number(text: str, most: str) -> int:
    if not most.isdecimal() or not int(most):
        raise _wrong(text)
    return int(most)


def _wrong(text: str) -> InvalidArgument:
    return InvalidArgument(f"queues.max_concurrency: {text!r} is no queue; name=8 is expected, or a name alone")
