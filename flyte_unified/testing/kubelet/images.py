"""What an image's name means on this node: an environment to run in, or the trouble of one that cannot be had.

By default every image is there and is the node's Python. Tests name those that are not: ``missing`` ones are nowhere,
``slow`` ones take their time. The words are containerd's and the kubelet's, since others read them.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from flyte_unified.core.errors import FailedPrecondition

_NAME = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
"""A reference as registries have it (https://github.com/distribution/reference)."""


class PullError(FailedPrecondition):
    """An image cannot be had. ``reason`` is the waiting state's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class Images:
    """``python`` is what every image is that ``pythons`` does not name. Names are patterns, as in ``broken/*``."""

    python: Path
    pythons: dict[str, Path] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    slow: dict[str, float] = field(default_factory=dict)
    """Seconds that a pull takes."""
    programs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What containers without a command run."""

    def interpreter(self, image: str) -> Path:
        return next((path for pattern, path in self.pythons.items() if fnmatchcase(image, pattern)), self.python)

    def program(self, image: str) -> tuple[str, ...]:
        return next((words for pattern, words in self.programs.items() if fnmatchcase(image, pattern)), ())

    def pulls(self, container: dict[str, str]) -> bool:
        """Whether a start pulls the image. Raises PullError for what is no name, and where it must be here and is not."""
        image = container.get("image", "")
        if not _NAME.fullmatch(image):
            why = f'couldn\'t parse image name "{image}": invalid reference format'
            raise PullError("InvalidImageName", f'Failed to apply default image tag "{image}": {why}')
        policy = container.get("imagePullPolicy") or ("Always" if _tag(image) == "latest" else "IfNotPresent")
        absent = self._is(image, self.missing)
        if policy == "Never" and absent:
            raise PullError("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
        return policy == "Always" or (policy != "Never" and (absent or self._is(image, self.slow)))

    async def pull(self, image: str) -> None:
        """Take as long as a pull takes. Raises PullError."""
        await asyncio.sleep(next((seconds for pattern, seconds in self.slow.items() if fnmatchcase(image, pattern)), 0.0))
        if not self._is(image, self.missing):
            return
        full = _qualified(image)
        if full.startswith("docker.io/"):
            why = (
                "pull access denied, repository does not exist or may require authorization: "
                "server message: insufficient_scope: authorization failed"
            )
        else:
            why = f"{full}: not found"
        text = f'failed to pull and unpack image "{full}": failed to resolve reference "{full}": {why}'
        raise PullError("ErrImagePull", text if "denied" in why else f"rpc error: code = NotFound desc = {text}")

    def _is(self, image: str, patterns: set[str] | dict[str, float]) -> bool:
        return any(fnmatchcase(image, pattern) for pattern in patterns)


def _tag(image: str) -> str:
    name = image.rpartition("/")[2]
    return "" if "@" in name else name.partition(":")[2] or "latest"


def _qualified(image: str) -> str:
    """With the registry and the tag that are left out."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
