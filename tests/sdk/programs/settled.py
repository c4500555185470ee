"""Tasks that tell what settings gave them; settings that are read and written by the SDK. Its arguments: what to tell."""

from __future__ import annotations

import os
import sys

import flyte
from flyte.io import File
from flyte.remote import RunDetails, Settings
from speak import say, tell

env = flyte.TaskEnvironment(name="settled", env_vars={"OF_TASK": "task"})
hungry_env = flyte.TaskEnvironment(name="hungry", resources=flyte.Resources(cpu=("100m", "2"), memory=("256Mi", "8Gi")))
SCOPE = {"project": "settled", "domain": "development"}


@env.task
async def given() -> list[str | None]:
    return [os.environ.get(name) for name in ("OF_DOMAIN", "OF_PROJECT", "OF_BOTH", "OF_RUN", "OF_ALL")]


@env.task
async def places() -> list[str]:
    """Where data goes, and the run's files."""
    return [File.new_remote().path, os.environ["_U_RUN_BASE"]]


@hungry_env.task
async def hungry() -> int:
    """Takes more than it requests, and less than its limit."""
    return len(b"x" * (400 << 20))


def update(**overrides: object) -> None:
    Settings.get_settings_for_edit(**SCOPE).update_settings(overrides)


def scopes() -> None:
    """What is set by others, below what a run says, and a change of it."""
    tell("explicit", flyte.with_runcontext(env_vars={"OF_RUN": "run"}).run(given))
    update(environment_variables={"OF_RUN": "project"}, labels={"team": "ours"})
    again = Settings.get_settings_for_edit(**SCOPE)
    say("effective", effective={each.key: [each.value, each.origin.scope_type] for each in again.effective_settings})
    tell("changed", flyte.run(given))


def everything() -> None:
    """All that a project can say."""
    before = flyte.run(places)
    before.wait(quiet=True)
    raw, base = before.outputs()[0]
    settings = {
        "run.default_queue": "wide",
        "run.max_action_concurrency": 3,
        "run.run_base_dir": f"{base.rsplit('/', 3)[0]}/settled",
        "storage.raw_data_path": f"{raw.partition('/_raw/')[0]}/_settled",
        "security.service_account": "settled",
        "pod_template_name": "settled",
        "labels": {"team": "ours"},
        "annotations": {"why": "because"},
        "environment_variables": {"OF_PROJECT": "project"},
        "task_resource.min.cpu": "1",
        "task_resource.min.gpu": 0,
        "task_resource.min.memory": "300Mi",
        "task_resource.min.storage": "64Mi",
        "task_resource.max.cpu": "200m",
        "task_resource.max.gpu": 0,
        "task_resource.max.memory": "1Gi",
        "task_resource.max.storage": "1Gi",
        "task_resource.mirror_limits_request": True,
        "task_resource.default_accelerator": "nvidia-l4",
        "app.disallow_anonymous": False,
        "app.app_dns_strategy": "shared",
    }
    update(**settings)
    say("form", left=sorted(set(Settings.available_keys()) - set(settings)))
    placed, limited = flyte.run(places), flyte.run(hungry)
    tell("placed", placed)
    tell("limited", limited)
    spec = RunDetails.get(placed.name).pb2.run_spec
    say(
        "kept",
        labels=dict(spec.labels.values),
        annotations=dict(spec.annotations.values),
        account=spec.security_context.run_as.k8s_service_account,
        queue=spec.queue,
        concurrency=spec.max_action_concurrency,
    )


if __name__ == "__main__":
    flyte.init_from_config()
    for each in (scopes, everything):
        if each.__name__ in sys.argv:
            each()
