"""What a recovering run takes over from the run before it, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.task import run_pb2

from flyte_unified.core.ids import ActionKey
from flyte_unified.core.phases import Phase
from flyte_unified.ledger.api import Move
from tests.unit.runs.world import World


async def recovering(world: World, *forced: str) -> ActionKey:
    """The root of a run that recovers r1."""
    spec = run_pb2.RunSpec(recover=run_pb2.Recover(force_rerun_actions=forced))
    spec.relation.related_to.CopyFrom(identifier_pb2.RunIdentifier(project="p", domain="development", name="r1"))
    spec.relation.relation_type = common_run_pb2.RELATION_TYPE_RECOVER
    return await world.run("r2", run_spec=spec)


async def ended(world: World, name: str, phase: Phase) -> str:
    """Ends a child of r1, and says where its outputs are."""
    key = await world.child(name)
    outputs = f"{world.base}/r1/{name}/1"
    await world.data.put(f"{outputs}/outputs.pb", b"", if_absent=True)
    await world.ledger.move(key, Move(to=phase, output_uri=outputs))
    return outputs


async def test_a_success_is_taken_over_with_its_outputs(world: World) -> None:
    """The child of the same name has ended when it begins, with the outputs of then."""
    await world.run()
    outputs = await ended(world, "c1", Phase.SUCCEEDED)
    taken = await world.ledger.action(await world.child("c1", await recovering(world)))
    assert (taken.phase, taken.output_uri) == (Phase.RECOVERED, outputs)
    assert taken.latest().outputs.output_uri == outputs


@pytest.mark.parametrize("reason", ["failed", "forced", "lost", "unknown"])
async def test_the_rest_is_computed(world: World, reason: str) -> None:
    """What had failed, was asked for again, lost its outputs, or never was, is queued."""
    await world.run()
    outputs = await ended(world, "c1", Phase.FAILED if reason == "failed" else Phase.SUCCEEDED)
    if reason == "lost":
        Path(outputs, "outputs.pb").unlink()
    root = await recovering(world, *(["c1"] if reason == "forced" else []))
    child = await world.child("c2" if reason == "unknown" else "c1", root)
    assert (await world.ledger.action(child)).phase is Phase.QUEUED
