"""``core-sleep``: waits as long as its one input says, without a process."""

from __future__ import annotations

from flyteidl2.core import types_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.clock import seconds
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.plugins.api import TaskContext, Timer, Work


def describe(context: TaskContext) -> Work:
    """Raises InvalidArgument for an interface that is not one duration in, nothing out."""
    interface = context.spec.task_template.interface
    inputs = interface.inputs.variables
    if len(inputs) != 1 or inputs[0].value.type.simple != types_pb2.DURATION:
        raise InvalidArgument("a core-sleep task takes exactly one input, a duration")
    if interface.outputs.variables:
        raise InvalidArgument("a core-sleep task has no outputs")
    name = inputs[0].key
    return Timer(lambda values: _duration(values, name))


def _duration(values: common_pb2.Inputs, name: str) -> float:
    for literal in values.literals:
        if literal.name == name and literal.value.scalar.primitive.HasField("duration"):
            duration = seconds(literal.value.scalar.primitive.duration)
            if duration < 0:
                raise InvalidArgument(f"input {name}: a task can't sleep for {duration} s")
            return duration
    raise InvalidArgument(f"input {name} is missing or no duration")
