"""What a kubelet tells of a container's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.kube.errors import Away, Missing
from flyte_unified.launchers.objects.times import parsed, rfc3339

START = Micros(1_700_000_000 * SECOND)


@dataclass
class Cluster:
    """One container's log, as a kubelet serves it: by whole seconds."""

    lines: list[bytes] = field(default_factory=list)
    running: bool = True
    there: bool = True
    asked: list[tuple[str, bool]] = field(default_factory=list)
    cuts: int = 0
    """How often each reader was cut off."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, *texts: str, at: float = 0.0) -> None:
        stamp = rfc3339(Micros(START + round(at * SECOND))).replace("Z", "123Z")
        self.lines += [f"{stamp} {text}".encode() for text in texts]
        self._tell()

    def end(self) -> None:
        self.running = False
        self._tell()

    def cut(self) -> None:
        self.cuts += 1
        self._tell()

    def log(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def logs(
        self, pod: str, *, namespace: str, container: str, follow: bool, since_time: str
    ) -> AsyncGenerator[bytes, None]:
        assert (pod, namespace, container) == ("pod", "n", "main")
        self.asked.append((since_time, follow))
        if not self.there:
            raise Missing("no pod", status=404)
        since = (parsed(since_time) or 0) // SECOND
        cuts, sent = self.cuts, 0
        while True:
            fresh, sent = self.lines[sent:], len(self.lines)
            for line in fresh:
                if (parsed(line.partition(b" ")[0].decode(errors="replace")) or 0) // SECOND >= since:
                    yield line
            if cuts != self.cuts:
                raise Away("cut")
            if not (follow and self.running):
                return
            await self.changed.wait()
