"""Programs that are asked something and answer at once: none outlives its time, nor whoever asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    code: int
    out: bytes
    complaint: bytes

    @property
    def last_words(self) -> str:
        """The last line of its complaint."""
        return self.complaint.decode(errors="replace").strip().rpartition("\n")[2]


async def answer(*command: str, seconds: float, environment: Mapping[str, str] | None = None, directory: str = "/") -> Answer:
    """Raises TimeoutError, and OSError for what is no program. ``environment`` is the server's unless said."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(seconds):
            out, complaint = await process.communicate()
            return Answer(await process.wait(), out, complaint)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
