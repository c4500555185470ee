"""From a task's references to secrets to what its process is given. Values pass through when it is launched; none is kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from flyteidl2.core import security_pb2

from flyte_unified.core.errors import NotFound
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.images import VARIABLES
from flyte_unified.launchers.api import Unlaunchable
from flyte_unified.launchers.processes.work import PrivateFiles
from flyte_unified.plugins import secrets as names

Reveal = Callable[[str, str, str], Awaitable[bytes]]
"""The value of a secret (by project, domain and name) for a task there. Raises NotFound."""

_LONGEST = 100 * 1024
"""Bytes of a variable: Linux has room for 128 KiB, its name included."""
_TRY = (sys.executable, "-I", "-S", str(Path(__file__).with_name("mounts.py")), names.DIRECTORY)


class Given(NamedTuple):
    """What goes to one process."""

    variables: dict[str, str]
    files: dict[str, bytes]
    """By their paths below the directory where they are looked for."""

    @property
    def private(self) -> PrivateFiles | None:
        return PrivateFiles(directory=names.DIRECTORY, files=self.files) if self.files else None


class Secrets:
    """Looks values up anew for each launch."""

    def __init__(self, reveal: Reveal) -> None:
        self._reveal = reveal
        self._files = False

    async def given(self, wanted: Iterable[security_pb2.Secret], key: ActionKey, *, mounted: bool = True) -> Given:
        """``mounted`` files take a mount namespace of the process's own.

        Raises Unlaunchable: there is no such secret, or it can't be given here as asked.
        """
        variables: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for secret in wanted:
            try:
                value = await self._reveal(key.project, key.domain, secret.key)
            except NotFound as error:
                raise Unlaunchable("SecretNotFound", error.message) from error
            if names.is_file(secret):
                if mounted:
                    await self._check_files(secret)
                files |= dict.fromkeys(names.paths(secret), value) | files  # groups may share a key; the first has it
                variables |= {secret.env_var: names.path(secret)} if secret.env_var else {}
            else:
                variables |= dict.fromkeys(names.names(secret), _text(secret, value))
        return Given(names.LOOKUP | variables if variables or files else {}, files)

    async def _check_files(self, secret: security_pb2.Secret) -> None:
        """Tried out once, on a process that does nothing else; again while it fails, as that can be mended."""
        if not self._files and (refused := await _refused()):
            raise Unlaunchable(
                "SecretUnavailable",
                f"secret {secret.key!r} is asked for as a file in {names.DIRECTORY}, which takes a mount namespace of "
                f"the task's own, and this machine gives none: {refused}. Ask for it as a variable, "
                f'flyte.Secret(key={secret.key!r}, as_env_var="NAME"); or allow namespaces to ordinary users: sysctl '
                "kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, and on Ubuntu "
                "kernel.apparmor_restrict_unprivileged_userns=0",
            )
        self._files = True


async def _refused() -> str:
    """Why a process can have no directory of its own there; empty if it can."""
    if sys.platform != "linux":
        return "only Linux has them"
    process = await asyncio.create_subprocess_exec(
        *_TRY, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    return told.decode(errors="replace").strip() or f"exit {process.returncode}" if process.returncode else ""


def _text(secret: security_pb2.Secret, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(value) > _LONGEST:
        holds = f"text (UTF-8) without null bytes, at most {_LONGEST >> 10} KiB"
        if secret.env_var.startswith(VARIABLES):
            raise Unlaunchable(
                "SecretUnavailable",
                f"secret {secret.key!r} can't be given to a layer of an image, as a file no more than as a variable: on a "
                f"laptop a build is given {holds}. Store it in base64, and have the layer's command decode it",
            )
        raise Unlaunchable(
            "SecretUnavailable",
            f"secret {secret.key!r} can be no environment variable: one holds {holds}. Ask for it as a file: "
            f"flyte.Secret(key={secret.key!r}, mount=pathlib.Path({names.DIRECTORY!r}))",
        )
    return text
