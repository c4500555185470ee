"""One task and one run; ``small.py interactive`` sends the function itself, as a notebook does."""

from __future__ import annotations

import sys

import flyte
from speak import tell

env = flyte.TaskEnvironment(name="small")


@env.task
async def greet(name: str) -> str:
    return f"hello {name} from {sys.prefix}"


@env.task
async def missing() -> int:
    import a_library_that_nobody_has  # noqa: F401

    return 1


if __name__ == "__main__":
    flyte.init_from_config()
    how, *variables = sys.argv[1:]
    context = flyte.with_runcontext(
        interactive_mode=True if how == "interactive" else None,
        env_vars=dict(variable.split("=", 1) for variable in variables),
    )
    tell("greeting", context.run(greet, name="you"))
    if variables:
        tell("missing", context.run(missing))
