"""Containers of a laptop: what they are given, what they leave, and how they end."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import flyte
from containers import breaker, greets
from flyte.extras import ContainerTask
from flyte.extras.shell import Glob, create
from flyte.io import File
from speak import say, tell

IMAGE = "example.com/greeter:1"
SHELL = ["/bin/sh", "-c"]
HELD = """
echo begun; : > /var/outputs/begun
until [ -e /var/outputs/go ]; do sleep 0.1; done
echo gone; echo 7 > /var/outputs/n
"""
SEEN = """
printf "%s" "$COLOR $TOKEN $(cat /etc/flyte/secrets/token) $PATH $RUN_NAME" > /var/outputs/seen
"""

given = ContainerTask(
    name="given",
    image=IMAGE,
    outputs={"seen": str},
    command=SHELL,
    arguments=[SEEN],
    env_vars={"COLOR": "deep\nblue", "PATH": "/bin"},
    secrets=[flyte.Secret("token"), flyte.Secret("token", mount=Path("/etc/flyte/secrets"))],
)
unfit = ContainerTask(name="unfit", image=IMAGE, command=["/bin/nothing"])
nowhere = ContainerTask(name="nowhere", image="localhost:1/nowhere:1", command=["true"])
forgetful = ContainerTask(name="forgetful", image=IMAGE, outputs={"n": int}, command=SHELL, arguments=["exit 0"])
greedy = ContainerTask(
    name="greedy",
    image=IMAGE,
    command=["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"],
    resources=flyte.Resources(memory=("32Mi", "32Mi")),
)
held = ContainerTask(name="held", image=IMAGE, outputs={"n": int}, command=SHELL, arguments=[HELD])
tool = create(
    name="tool",
    image=IMAGE,
    inputs={"words": File, "loud": bool},
    outputs={"parts": Glob("*.txt"), "said": str},
    script="""
        for word in $(cat {inputs.words}); do echo $word > {outputs.parts}/$word.txt; done
        echo {flags.loud} > {outputs.said}
    """,
)

others = (given, unfit, nowhere, forgetful, greedy, held)
contained = flyte.TaskEnvironment(
    name="contained", depends_on=[tool.env, *(flyte.TaskEnvironment.from_task(task.name, task) for task in others)]
)


@contained.task
async def tools(words: str) -> list[str]:
    path = Path(tempfile.mkdtemp()) / "words"
    path.write_text(words)
    parts, said = await tool(words=await File.from_local(str(path)), loud=True)
    return [*(Path(part.path).name for part in parts), said.strip()]


CASES = {
    "greets": (greets, {"name": "you"}),
    "given": (given, {}),
    "breaker": (breaker, {}),
    "unfit": (unfit, {}),
    "nowhere": (nowhere, {}),
    "forgetful": (forgetful, {}),
    "greedy": (greedy, {}),
    "tools": (tools, {"words": "one two"}),
}

if __name__ == "__main__":
    flyte.init_from_config()
    if sys.argv[1:] == ["held"]:
        print(flyte.run(held).name)
    else:
        runs = {case: flyte.run(task, **inputs) for case, (task, inputs) in CASES.items()}
        aborted = flyte.run(held)
        for case, run in runs.items():
            tell(case, run)
        say("held", run=aborted.name)
