"""What a trigger adds to a CreateRun, and what the time of its fire does. Pure.

The request comes first, then what the trigger was deployed with, then the task's defaults. The SDK's runtime fills the input
that gets the time by itself, told by a mark in the inputs' context; other tasks read the value from the inputs, where they lie
in the run. In offloaded ones, which are shared by all fires, there is none: there the time counts for the cache key only.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from flyteidl2.core import types_pb2
from flyteidl2.task import common_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2
from flyteidl2.workflow import run_service_pb2

from flyte_unified.core.clock import Micros, timestamp
from flyte_unified.dataproxy.api import KICKOFF_TIME, fill_defaults, inputs_hash
from flyte_unified.runs.requests import Inputs
from flyte_unified.triggers.api import Trigger


def kickoff(trigger: Trigger) -> str:
    """The input that gets the time of the fire; empty if none does."""
    return str(trigger.automation_message().schedule.kickoff_time_input_arg)


def complete(
    message: run_service_pb2.CreateRunRequest,
    spec: trigger_definition_pb2.TriggerSpec,
    stored: common_pb2.Inputs,
    *,
    kickoff: str,
) -> run_service_pb2.CreateRunRequest:
    """``message`` with the trigger's run spec and inputs where it has none; inline inputs are laid over ``stored``."""
    whole = run_service_pb2.CreateRunRequest()
    whole.CopyFrom(message)
    if not message.HasField("run_spec"):
        whole.run_spec.CopyFrom(spec.run_spec)
    given = message.WhichOneof("input_wrapper") or spec.WhichOneof("input_wrapper")
    if given == "offloaded_input_data":
        if not message.HasField("offloaded_input_data"):
            whole.offloaded_input_data.CopyFrom(spec.offloaded_input_data)
    else:
        whole.inputs.CopyFrom(_merged(stored, message.inputs, kickoff=kickoff))
    return whole


def at(inputs: Inputs, spec: task_definition_pb2.TaskSpec, start: Micros, *, kickoff: str) -> Inputs:
    """``inputs`` of the fire at ``start``."""
    ignored = frozenset(spec.task_template.metadata.cache_ignore_input_vars)
    if not kickoff:
        return inputs
    if inputs.data is None:
        return inputs if kickoff in ignored else Inputs(_folded(inputs.hashed, start), uri=inputs.uri)
    message = common_pb2.Inputs.FromString(inputs.data)
    if not _marked(message, kickoff) or not _takes_time(spec, kickoff):
        return inputs
    timed = common_pb2.Inputs(context=message.context)
    timed.literals.extend(literal for literal in message.literals if literal.name != kickoff)  # a default of the task
    timed.literals.add(name=kickoff).value.scalar.primitive.datetime.CopyFrom(timestamp(start))
    filled = fill_defaults(timed, spec)
    return Inputs(inputs_hash(filled, ignored), data=filled.SerializeToString(deterministic=True))


def origin(trigger: Trigger | None) -> dict[str, Any]:
    """The columns of a run that name what started it."""
    if trigger is None:
        return {}
    return {
        "trigger_task": trigger.key.task,
        "trigger_name": trigger.key.name,
        "trigger_revision": trigger.revision,
        "trigger_type": int(trigger.automation_type),
    }


def _merged(stored: common_pb2.Inputs, given: common_pb2.Inputs, *, kickoff: str) -> common_pb2.Inputs:
    """``given`` over ``stored``, value by value. What ``given`` says of the time's input is a value like any other."""
    explicit = {literal.name for literal in given.literals}
    merged = common_pb2.Inputs(literals=given.literals)
    merged.literals.extend(e for e in stored.literals if e.name not in explicit and e.name != kickoff)
    context = {entry.key: entry.value for entry in (*stored.context, *given.context) if entry.key != KICKOFF_TIME}
    if kickoff and kickoff not in explicit:
        context[KICKOFF_TIME] = kickoff
    for key, value in context.items():
        merged.context.add(key=key, value=value)
    return merged


def _marked(inputs: common_pb2.Inputs, kickoff: str) -> bool:
    return any(entry.key == KICKOFF_TIME and entry.value == kickoff for entry in inputs.context)


def _takes_time(spec: task_definition_pb2.TaskSpec, name: str) -> bool:
    variables = spec.task_template.interface.inputs.variables
    return any(entry.key == name and entry.value.type.simple == types_pb2.SimpleType.DATETIME for entry in variables)


def _folded(hashed: str, start: Micros) -> str:
    return base64.b64encode(hashlib.sha256(f"{hashed}|{start}".encode()).digest()).decode()
