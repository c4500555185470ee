"""Addresses of pods' own, where the node may give them: a network namespace for each pod, all on one bridge of the machine.

It needs Linux, the program ``ip``, and the rights of root over this process's own network namespace, which
``unshare --net --mount`` makes a throw-away one. Then pods listen where they like, as in a cluster, beside one another.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.launchers.processes.answers import answer

_DEVICE = "pods0"
_NAMESPACES = Path("/run/netns")
"""Where ``ip`` keeps them."""
_SECONDS = 30.0


class Network:
    """``addresses`` are the pods', but the first one, which is the machine's."""

    def __init__(self, addresses: str = "10.244.0.0/16") -> None:
        network = IPv4Network(addresses)
        self._bits = network.prefixlen
        self._free = network.hosts()
        self.machine = str(next(self._free))
        """As pods reach it."""

    async def start(self) -> None:
        """Another one's of the same machine is used, too. Raises FailedPrecondition where there can be none."""
        if _DEVICE in (name for _, name in socket.if_nameindex()):
            return
        await _ip("link", "add", _DEVICE, "type", "bridge")
        await _ip("address", "add", f"{self.machine}/{self._bits}", "dev", _DEVICE)
        await _ip("link", "set", _DEVICE, "up")

    def address(self) -> str:
        """One that no pod has, and none of ours had."""
        return next(free for free in map(str, self._free) if not self.path(free).exists())

    async def add(self, address: str) -> None:
        """A network namespace that has it."""
        name, device = f"pod-{address}", f"pod{int(IPv4Address(address)):x}"
        await _ip("netns", "add", name)
        await _ip("link", "add", device, "master", _DEVICE, "up", "type", "veth", "peer", "name", "eth0", "netns", name)
        await _ip("-netns", name, "address", "add", f"{address}/{self._bits}", "dev", "eth0")
        for link in ("lo", "eth0"):
            await _ip("-netns", name, "link", "set", link, "up")

    async def remove(self, address: str) -> None:
        """If it was added."""
        if self.path(address).exists():
            await _ip("netns", "delete", f"pod-{address}")

    def path(self, address: str) -> Path:
        """The file that a process enters."""
        return _NAMESPACES / f"pod-{address}"


async def _ip(*arguments: str) -> None:
    try:
        said = await answer("ip", *arguments, seconds=_SECONDS)
    except FileNotFoundError as error:
        raise FailedPrecondition("pods can have no addresses of their own: there is no program `ip`") from error
    if said.code:
        raise FailedPrecondition(f"ip {' '.join(arguments)}: {said.last_words}")
