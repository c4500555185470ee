"""The system's task ``build-image`` on a laptop: a process of the server's own interpreter that builds a virtual environment.

So it is logged, repeated and aborted like any other. The program is ``images.build``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec

from flyteidl2.core import security_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.images import variable
from flyte_unified.plugins.api import Process, Refusal, Resources, TaskContext
from flyte_unified.plugins.container import system
from flyte_unified.plugins.secrets import wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilds:
    """How a laptop builds images."""

    arguments: tuple[str, ...]
    """Of the program, whatever it builds."""
    interpreter: str
    """The variable by which a process chooses its Python."""

    def describe(self, context: TaskContext) -> Process | Refusal:
        """The attempt as a process of the server's own interpreter. Raises InvalidArgument."""
        if find_spec("obstore") is None:  # brought by the SDK
            return Refusal("MissingLibrary", "building images takes the SDK and uv: pip install 'flyte-unified[laptop]'")
        action, run = context.action.key, context.run_spec
        arguments = [
            *("python", "-P", "-m", "flyte_unified.images.build", *self.arguments),
            f"--inputs={context.action.input_uri}",
            f"--outputs={context.output_prefix}",
            f"--run={action.project}/{action.domain}/{action.run}",
        ]
        if forced(run):
            arguments.append("--force")
        asked = wanted(context.spec.task_template.security_context, run.security_context)
        return Process(
            arguments=tuple(arguments),
            environment={self.interpreter: sys.executable},
            system=system(context, actions="1"),
            resources=Resources(),
            secrets=tuple(security_pb2.Secret(key=each.key, group=each.group, env_var=variable(each)) for each in asked),
        )


def forced(run: run_pb2.RunSpec) -> bool:
    """Whether an image is to be built anew."""
    return bool(run.overwrite_cache or run.cache_config.overwrite_cache)
