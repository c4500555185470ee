"""TranslatorService: which literals a request means, and who may read them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from flyteidl2.common.identifier_pb2 import ActionIdentifier, TriggerIdentifier
from flyteidl2.task.common_pb2 import Inputs, Outputs
from flyteidl2.workflow.translator_service_pb2 import (
    JsonValuesToLiteralsRequest,
    LaunchFormJsonToLiteralsRequest,
    LiteralsToLaunchFormJsonRequest,
    TaskSpecToLaunchFormJsonRequest,
)

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.dataproxy.translator.handlers import TranslatorHandlers
from tests.unit.translator.samples import INT, integer, named, struct, variables

CTX = CallContext(procedure="/flyteidl2.workflow.TranslatorService/Any")
INPUTS, OUTPUTS, OTHER = "file:///a0/inputs.pb", "file:///a0/outputs.pb", "file:///b1/inputs.pb"
OBJECTS = {
    INPUTS: Inputs(literals=named(x=integer(1))).SerializeToString(),
    OUTPUTS: Outputs(literals=named(x=integer(2)), produced_artifacts=[{"output": "x", "name": "y"}]).SerializeToString(),
    OTHER: Inputs(literals=named(x=integer(3))).SerializeToString(),
    "file:///a0/broken.pb": b"\xff\xff",
}


async def action_uris(action: ActionIdentifier) -> Collection[str]:
    if action.name != "a0":
        raise NotFound(f"action {action.name}")
    return (INPUTS, OUTPUTS, "file:///a0/broken.pb")


async def trigger_inputs(trigger: TriggerIdentifier) -> Inputs:
    return Inputs(literals=named(x=integer(9)))


async def read_object(uri: str) -> bytes:
    return OBJECTS[uri]


HANDLERS = TranslatorHandlers(action_uris=action_uris, trigger_inputs=trigger_inputs, read_object=read_object)


async def default(request: LiteralsToLaunchFormJsonRequest) -> float:
    request.variables.CopyFrom(variables(x=INT))
    form = (await HANDLERS.literals_to_launch_form_json(request, CTX)).json
    return float(form["properties"]["x"]["default"])


async def test_literals_are_inline_or_stored() -> None:
    """Inline, of an action's inputs or outputs, or of a trigger, which outranks the others."""
    action = ActionIdentifier(name="a0")
    inline = named(x=integer(5))
    assert await default(LiteralsToLaunchFormJsonRequest(literals=inline)) == 5
    assert await default(LiteralsToLaunchFormJsonRequest(literals=inline, action_id=action)) == 5
    assert await default(LiteralsToLaunchFormJsonRequest(literals=inline, action_id=action, literals_uri=INPUTS)) == 1
    assert await default(LiteralsToLaunchFormJsonRequest(action_id=action, literals_uri=OUTPUTS)) == 2
    trigger = LiteralsToLaunchFormJsonRequest(literals=inline, literals_uri=INPUTS, trigger_id=TriggerIdentifier())
    assert await default(trigger) == 9


async def test_only_what_belongs_to_the_action_is_read() -> None:
    """A URI of something else is refused, whoever asks; so is one without an action."""
    with pytest.raises(InvalidArgument, match="literals_uri: not of the inputs or outputs of action 'a0'"):
        await default(LiteralsToLaunchFormJsonRequest(action_id=ActionIdentifier(name="a0"), literals_uri=OTHER))
    with pytest.raises(InvalidArgument, match="action_id is missing"):
        await default(LiteralsToLaunchFormJsonRequest(literals_uri=INPUTS))
    with pytest.raises(NotFound, match="a1"):
        await default(LiteralsToLaunchFormJsonRequest(action_id=ActionIdentifier(name="a1"), literals_uri=INPUTS))


async def test_a_stored_object_that_is_no_literals_is_named() -> None:
    """The store's content is at fault, not this program: no retry helps."""
    request = LiteralsToLaunchFormJsonRequest(action_id=ActionIdentifier(name="a0"), literals_uri="file:///a0/broken.pb")
    with pytest.raises(FailedPrecondition, match="holds no literals"):
        await default(request)


async def test_task_form_and_literals_agree() -> None:
    """The form of a task, filled in, becomes the literals that its values would."""
    request = TaskSpecToLaunchFormJsonRequest()
    request.task_spec.task_template.interface.inputs.CopyFrom(variables(x=INT))
    form = (await HANDLERS.task_spec_to_launch_form_json(request, CTX)).json
    form["properties"]["x"]["default"] = 4
    of_form = await HANDLERS.launch_form_json_to_literals(LaunchFormJsonToLiteralsRequest(json=form), CTX)
    values = JsonValuesToLiteralsRequest(values=struct({"x": 4}), variables=variables(x=INT))
    of_values = await HANDLERS.json_values_to_literals(values, CTX)
    assert list(of_form.literals) == list(of_values.literals) == named(x=integer(4))


async def test_values_are_required_but_may_be_empty() -> None:
    """A task without inputs takes an empty object; no object at all is a mistake."""
    with pytest.raises(InvalidArgument, match="values is missing"):
        await HANDLERS.json_values_to_literals(JsonValuesToLiteralsRequest(), CTX)
    answer = await HANDLERS.json_values_to_literals(JsonValuesToLiteralsRequest(values=struct({})), CTX)
    assert not answer.literals


async def test_large_values_leave_the_loop_free() -> None:
    """Megabytes convert beside the loop, with the same answer and the same refusals."""
    values = struct({"x": list(range(20_000))})
    form = {"properties": {"x": {"type": "array", "items": {"type": "integer"}, "default": values["x"]}}}
    request = LaunchFormJsonToLiteralsRequest(json=struct(form))
    converted = asyncio.create_task(HANDLERS.launch_form_json_to_literals(request, CTX))
    turns = 0
    while not converted.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1  # on the loop it would be done in its first turn
    assert (await converted).literals[0].value.collection.literals[-1] == integer(19_999)
    request.json["properties"]["x"]["default"].append("no")
    with pytest.raises(InvalidArgument, match="x/20000: expected integer, got 'no'"):
        await HANDLERS.launch_form_json_to_literals(request, CTX)
