"""A task that tells what settings gave it; settings that are read and written by the SDK."""

from __future__ import annotations

import os

import flyte
from flyte.remote import Settings
from speak import say, tell

env = flyte.TaskEnvironment(name="settled", env_vars={"OF_TASK": "task"})


@env.task
async def given() -> list[str | None]:
    return [os.environ.get(name) for name in ("OF_DOMAIN", "OF_PROJECT", "OF_BOTH", "OF_RUN")]


if __name__ == "__main__":
    flyte.init_from_config()
    tell("explicit", flyte.with_runcontext(env_vars={"OF_RUN": "run"}).run(given))
    settings = Settings.get_settings_for_edit(project="settled", domain="development")
    settings.update_settings({"environment_variables": {"OF_RUN": "project"}, "labels": {"team": "ours"}})
    again = Settings.get_settings_for_edit(project="settled", domain="development")
    say("effective", effective={each.key: [each.value, each.origin.scope_type] for each in again.effective_settings})
    tell("changed", flyte.run(given))
