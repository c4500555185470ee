"""The system's task ``build-image``, which the SDK's remote builder calls: what it is called, and what it is on a laptop.

On a laptop it is a process of the server's own interpreter that builds a virtual environment (``images.build``); it is logged,
repeated and aborted like any other.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass

from flyteidl2.core import security_pb2

from flyte_unified.plugins.api import Process, Resources, TaskContext
from flyte_unified.plugins.container import system
from flyte_unified.plugins.secrets import wanted

TYPE = "build-image"
INPUTS = ("spec", "context", "target_image")
"""Addresses of an imagebuilder.ImageSpec and of a context.tar.gz (or nothing), and the name that the image is to have."""
OUTPUT = "fully_qualified_image"
OURS = "local/"
"""What the names of images begin with that are virtual environments here."""
VARIABLES = "_FLYTE_BUILD_"
"""What the variables begin with in which the program finds secrets."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilds:
    """How a laptop builds images."""

    arguments: tuple[str, ...]
    """Of the program, whatever it builds."""
    interpreter: str
    """The variable by which a process chooses its Python."""

    def describe(self, context: TaskContext) -> Process:
        """The attempt as a process of the server's own interpreter. Raises InvalidArgument."""
        action, run = context.action.key, context.run_spec
        arguments = [
            *("python", "-P", "-m", "flyte_unified.images.build", *self.arguments),
            f"--inputs={context.action.input_uri}",
            f"--outputs={context.output_prefix}",
            f"--run={action.project}/{action.domain}/{action.run}",
        ]
        if run.overwrite_cache or run.cache_config.overwrite_cache:
            arguments.append("--force")
        asked = wanted(context.spec.task_template.security_context, run.security_context)
        return Process(
            arguments=tuple(arguments),
            environment={self.interpreter: sys.executable},
            system=system(context, actions="1"),
            resources=Resources(),
            secrets=tuple(security_pb2.Secret(key=each.key, group=each.group, env_var=variable(each)) for each in asked),
        )


def variable(secret: security_pb2.Secret) -> str:
    """Where the program finds the value of one of its secrets, for the layers that ask for it."""
    return VARIABLES + hashlib.sha256(f"{secret.group}/{secret.key}".encode()).hexdigest()[:16].upper()
