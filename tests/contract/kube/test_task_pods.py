"""Tasks' pods as built by the plugin, accepted by the API server and run by a node, and what they tell there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import common_pb2

from flyte_unified.core.clock import SystemClock
from flyte_unified.core.phases import Phase
from flyte_unified.kube.kinds import PODS
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Pod, State, TaskContext
from flyte_unified.plugins.pods.build import Pods
from flyte_unified.plugins.pods.config import DataSide, Patience, PodConfig
from flyte_unified.plugins.pods.state import state
from tests.contract.kube.nodes import World, world
from tests.unit.plugins.contexts import context_of, spec

__all__ = ["world"]

NUMBER = {"type": {"simple": "INTEGER"}}
INTERFACE = {
    "inputs": {"variables": [{"key": "x", "value": NUMBER}]},
    "outputs": {"variables": [{"key": "y", "value": NUMBER}]},
}
DATA = DataSide(image="flyte-unified:1", command=(sys.executable, "-m", "flyte_unified", "data"), timeout=30)


def number(value: int) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=value)))


def attempt(store: Path, script: str) -> TaskContext:
    """A shell's script with one number in and one out, in a store that is a directory."""
    container = {
        "image": "alpine:3",
        "command": ["sh", "-c", script],
        "dataConfig": {"enabled": True, "inputPath": "/var/inputs", "outputPath": "/var/outputs"},
    }
    inputs = common_pb2.Inputs(literals=[common_pb2.NamedLiteral(name="x", value=number(20))])
    store.mkdir(exist_ok=True)
    (store / "inputs.pb").write_bytes(inputs.SerializeToString())
    context = context_of(
        spec(container=container, interface=INTERFACE),
    )
    places = {"output_prefix": f"{store}/1", "raw_prefix": f"{store}/raw", "inputs": inputs}
    return replace(context, action=replace(context.action, input_uri=str(store / "inputs.pb")), **places)


async def lived(world: World, context: TaskContext) -> list[State]:
    """What its pod told, from its creation to its end."""
    pod = Pods(PodConfig(data=DATA)).describe(context)
    assert isinstance(pod, Pod), pod
    metadata = {"name": "pod", "namespace": world.namespace, **pod.manifest["metadata"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod.manifest["spec"], "nodeName": world.node}}
    await world.kube.create(PODS, body)
    await world.until(lambda found: read(found).exit is not None)
    return [read(found) for found in world.seen["pod"]]


def read(found: dict[str, Any]) -> State:
    return state(found, now=SystemClock().now(), config=Patience())


async def test_a_container_that_knows_nothing_of_flyte(world: World, tmp_path: Path):
    """Its inputs are files when it starts, what it leaves is stored when it has ended, and only then it is over."""
    store = tmp_path / "store"
    told = await lived(world, attempt(store, "echo $(( $(cat /var/inputs/x) + {{.inputs.x}} + 2 )) > /var/outputs/y"))
    assert told[-1].exit is not None
    assert (told[-1].exit.code, told[-1].exit.fault, told[-1].phase) == (0, None, Phase.RUNNING)
    phases = [found.phase for found in told]
    assert phases == sorted(phases)
    stored = common_pb2.Outputs.FromString((store / "1" / "outputs.pb").read_bytes())
    assert stored.literals[0].value == number(42)


@pytest.mark.parametrize("leaves", ["echo 1 > /var/outputs/y; ", ""])
async def test_its_exit_code_decides(world: World, tmp_path: Path, leaves: str):
    """With outputs or without: nobody else can tell that it failed."""
    told = await lived(world, attempt(tmp_path / "store", f"{leaves}echo it went wrong >&2; exit 3"))
    assert told[-1].exit is not None
    fault = told[-1].exit.fault
    assert fault is not None
    assert (fault.code, fault.failure, fault.certain) == ("ContainerExited", Failure.USER, True)
    assert "it went wrong" in fault.message


async def test_its_inputs_are_not_there(world: World, tmp_path: Path):
    """Told in error.pb, and the container never begins."""
    context = attempt(tmp_path / "store", "echo never > /var/outputs/y")
    (tmp_path / "store" / "inputs.pb").unlink()
    told = await lived(world, context)
    assert told[-1].exit is not None
    assert told[-1].exit.fault is not None
    assert told[-1].exit.fault.code == "InitContainerFailed"
    assert told[-1].phase is Phase.INITIALIZING
    document = execution_pb2.ErrorDocument.FromString((tmp_path / "store" / "1" / "error.pb").read_bytes())
    assert document.error.code == "InputUnreadable"
