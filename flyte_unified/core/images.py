"""Images: what their names say, their variables, and what the task that builds them is told and tells. Pure.

The task is ``build-image``, which the SDK's remote builder calls (flyteidl2/imagebuilder).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from flyteidl2.core import security_pb2

BUILD_IMAGE = "build-image"
"""The name of the task, and its type."""
TARGET = "target_image"
INPUTS = ("spec", "context", TARGET)
"""Addresses of an imagebuilder.ImageSpec and of a context.tar.gz (or nothing), and the name that the image is to have."""
OUTPUT = "fully_qualified_image"
OURS = "local/"
"""What the addresses of images begin with that are virtual environments of this machine."""
VARIABLES = "_FLYTE_BUILD_"
"""What the variables begin with in which a build finds secrets."""

_DEFAULT = re.compile(r"(?:^|/)flyteorg/flyte:py(?P<python>\d+\.\d+)(?:-v(?P<flyte>[0-9a-z.]+))?$")


@dataclass(frozen=True, slots=True)
class Default:
    """What the name of one of Flyte's own images says: the version of Python, and of the SDK unless it has none."""

    python: str
    flyte: str = ""


def default(image: str) -> Default | None:
    """None for an image of somebody else."""
    found = _DEFAULT.search(image)
    return Default(found["python"], found["flyte"] or "") if found else None


def short(image: str) -> str:
    """``name:tag``, as the SDK asks for an image."""
    return image.rpartition("/")[2]


def variable(secret: security_pb2.Secret) -> str:
    """Where a build finds the value of a secret, for the layers that ask for it."""
    return VARIABLES + hashlib.sha256(f"{secret.group}/{secret.key}".encode()).hexdigest()[:16].upper()


def expanded(variables: Sequence[tuple[str, str]], environ: Mapping[str, str]) -> dict[str, str]:
    """``variables`` with those before them, and ``environ``'s, put in for ``$NAME`` and ``${NAME}``, as a Dockerfile has it."""
    found: dict[str, str] = {}
    for name, value in variables:
        found[name] = Template(value).safe_substitute({**environ, **found})
    return found
