"""What only a cluster runs: images of their own, PodTemplates by name, Secrets by reference."""

from __future__ import annotations

import os
import sys

import flyte
from flyte.extras import ContainerTask
from kubernetes.client import V1Container, V1EnvVar, V1PodSpec
from speak import children, say, tell

GREET = """
for n in $(seq {{.inputs.times}}); do printf "hello %s;" "$(cat /var/inputs/name)"; done > /var/outputs/greeting
wc -c < /var/outputs/greeting > /var/outputs/length
"""

greeter = ContainerTask(
    name="greeter",
    image="example.com/greeter:1",
    inputs={"name": str, "times": int},
    outputs={"greeting": str, "length": int},
    command=["/bin/sh", "-c"],
    arguments=[GREET],
    input_data_dir="/var/inputs",
    output_data_dir="/var/outputs",
)
breaker = ContainerTask(name="breaker", image="example.com/breaker:1", command=["/bin/sh", "-c", "echo no luck >&2; exit 3"])
unknown = ContainerTask(name="unknown", image="example.com/nowhere:1", command=["true"])

raw = [flyte.TaskEnvironment.from_task(task.name, task) for task in (greeter, breaker, unknown)]
env = flyte.TaskEnvironment(name="containers", depends_on=raw)
named = flyte.TaskEnvironment(name="named", pod_template="a-template-of-the-cluster")
secret = flyte.TaskEnvironment(name="secret", secrets=[flyte.Secret(key="password", group="database", as_env_var="PASSWORD")])
podded = flyte.TaskEnvironment(
    name="podded",
    pod_template=flyte.PodTemplate(
        labels={"team": "ours"},
        pod_spec=V1PodSpec(containers=[V1Container(name="primary", env=[V1EnvVar(name="FROM_POD", value="pod")])]),
    ),
)


@env.task
async def greets(name: str) -> str:
    greeting, length = await greeter(name=name, times=2)
    return f"{greeting} {length}"


@named.task
async def of_template() -> str:
    return os.environ["FROM_TEMPLATE"]


@secret.task
async def with_secret() -> int:
    return len(os.environ["PASSWORD"])


@podded.task
async def of_pod() -> str:
    return os.environ["FROM_POD"]


CASES = {
    "container": (greets, {"name": "you"}),
    "breaker": (breaker, {}),
    "unknown": (unknown, {}),
    "template": (of_template, {}),
    "secret": (with_secret, {}),
    "pod": (of_pod, {}),
}


if __name__ == "__main__":
    flyte.init_from_config()
    runs = {case: flyte.run(task, **inputs) for case, (task, inputs) in CASES.items() if case in sys.argv[1:]}
    for case, run in runs.items():
        tell(case, run)
        say(f"{case} children", actions=children(run))
