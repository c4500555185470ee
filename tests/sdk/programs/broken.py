"""A module that its author can import, and its task cannot."""

from __future__ import annotations

import os

import flyte
from speak import raised, tell

if "ACTION_NAME" in os.environ:
    import a_library_that_nobody_has  # noqa: F401

env = flyte.TaskEnvironment(name="broken")


@env.task(retries=1)
async def never() -> int:
    return 1


if __name__ == "__main__":
    flyte.init_from_config()
    run = flyte.run(never)
    tell("import", run, raised=raised(run))
