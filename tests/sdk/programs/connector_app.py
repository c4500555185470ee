"""A connector that is an app, and a task that it runs. Its directory of jobs is the first argument."""

from __future__ import annotations

import flyte
import flyte.app
from connected import TASKS
from speak import say, tell

farm = flyte.app.ConnectorEnvironment(
    name="farm",
    image=flyte.Image.from_base("local"),
    args=["c0", "--port", "8080", "--prometheus_port", "0", "--modules", "farm"],
    include=["farm.py"],
)


if __name__ == "__main__":
    flyte.init_from_config()
    say("served", active=flyte.serve(farm).is_active())
    tell("ran", flyte.run(TASKS["succeeds"], x=21))
