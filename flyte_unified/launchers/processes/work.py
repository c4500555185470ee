"""What is launched, and what is heard of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateFiles:
    """A directory in memory that one process and its descendants see, and nobody else."""

    directory: str
    files: Mapping[str, bytes] = field(repr=False)
    """By their paths below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessWork:
    """One attempt of a task, as a local process."""

    id: str
    """Unique, and fit for a file's name."""
    argv: tuple[str, ...]
    """As in a container: the first is found in the interpreter's ``bin`` directory, else on ``env``'s PATH."""
    env: Mapping[str, str]
    """The whole environment, but for ``secrets``."""
    directory: Path
    """Where it runs; created."""
    log: Path
    """Where its output goes (see ``logs``); directories are created."""
    interpreter: Path
    warm: bool
    """Whether it may start from a fork server. It cannot tell the difference, but for its speed."""
    memory_limit: int | None = None
    """Bytes that it and its descendants may have resident."""
    log_limit: int = 64 << 20
    """Bytes of output kept."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables over ``env``. They are told to the process, and stand nowhere else: neither in a file nor in a fork server."""
    private: PrivateFiles | None = None
    """The same as files."""
    note: str = ""
    """What its log begins with: a line of ours."""


@dataclass(frozen=True, slots=True)
class Started:
    """The process exists. Times are microseconds since the epoch."""

    id: str
    pid: int
    at: int
    warm: bool = False
    """It came from a fork server."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The process was running when this launcher came."""

    id: str
    pid: int
    at: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process and all of its descendants are gone, and the log is complete.

    It is told again after a restart until it is forgotten.
    """

    id: str
    exit_code: int | None
    """None when a signal ended it, or when ``known`` is false."""
    signal: int | None
    max_rss_bytes: int
    at: int
    oom: bool
    """Killed for using more than ``memory_limit``."""
    known: bool
    """False when nobody saw how it ended, as the keeper was dead: its files decide."""
    cpu_seconds: float = 0.0


WorkEvent = Started | Adopted | Exited
