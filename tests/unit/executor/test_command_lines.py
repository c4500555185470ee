"""Values of inputs in a task's command line, and ends that outputs don't outweigh."""

from __future__ import annotations

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2

from flyte_unified.executor.outcome import Failed, judge
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Exit, Fault, Process
from tests.unit.executor.world import ROOT, World, spec


@pytest.mark.virtual_time
async def test_inputs_stand_in_a_command_line(world: World) -> None:
    """They are read where a task asks for them."""
    task = spec()
    task.task_template.container.args.append("--x={{.inputs.x}}")
    await world.run(task)
    inputs = common_pb2.Inputs()
    inputs.literals.add(name="x").value.scalar.primitive.integer = 7
    await world.store.put(f"{world.base}/r1/inputs.pb", inputs.SerializeToString())
    async with world.server() as (_, machine):
        attempt = await machine.launched(ROOT)
        assert isinstance(attempt.work, Process)
        assert attempt.work.arguments[-1] == "--x=7"
        await world.succeed(machine, ROOT)
        await world.ended(ROOT)


def test_a_certain_fault_outweighs_outputs() -> None:
    """Another container stored them than the one that failed; what the task says of itself weighs more still."""
    fault = Fault(code="ContainerExited", message="code 3", failure=Failure.USER)
    certain = Fault(code="ContainerExited", message="code 3", failure=Failure.USER, certain=True)
    found = {"error_file": None, "outputs_file": common_pb2.Outputs().SerializeToString(), "outputs": (), "environment": ""}
    assert not isinstance(judge(ending=Exit(code=3, fault=fault), **found), Failed)  # type: ignore[arg-type]
    judged = judge(ending=Exit(code=3, fault=certain), **found)  # type: ignore[arg-type]
    assert isinstance(judged, Failed)
    assert (judged.error.code, judged.failure) == ("ContainerExited", Failure.USER)


@pytest.mark.parametrize(("told", "code"), [("OutputUnreadable", "ContainerExited"), ("ContainerError", "ContainerError")])
def test_why_a_container_failed_outweighs_what_it_did_not_leave(told: str, code: str) -> None:
    """Who stores its outputs finds none, and can't know why; what the container says itself is told."""
    document = execution_pb2.ErrorDocument(error=execution_pb2.ContainerError(code=told, message="output n: left no file"))
    fault = Fault(code="ContainerExited", message="code 3", failure=Failure.USER, certain=True)
    judged = judge(
        error_file=document.SerializeToString(),
        outputs_file=None,
        outputs=("n",),
        ending=Exit(code=3, fault=fault),
        environment="",
    )
    assert isinstance(judged, Failed)
    assert judged.error.code == code
