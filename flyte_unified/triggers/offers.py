"""What a run is told of the version of an artifact that starts it: its value, its partitions, and the run that made it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from flyteidl2.artifact import artifact_pb2
from flyteidl2.common import run_pb2
from flyteidl2.core import artifact_id_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from flyte_unified.dataproxy.api import Specs
from flyte_unified.triggers.model import Offer, Trigger

Find = Callable[[str, str, str, str], Awaitable[artifact_pb2.ArtifactSpec | None]]
"""The artifact with a project, a domain, a name and a version; None where it is gone."""

_Types = dict[str, types_pb2.LiteralType]


class Offers:
    """``specs`` knows the tasks that triggers start."""

    def __init__(self, *, find: Find, specs: Specs) -> None:
        self._find = find
        self._specs = specs

    async def request(self, trigger: Trigger, offer: Offer) -> run_service_pb2.CreateRunRequest | None:
        """What a run of ``trigger`` for ``offer`` has beside its names; None where the artifact is gone. Raises NotFound."""
        artifact = await self._find(trigger.key.project, trigger.key.domain, offer.artifact, offer.version)
        if artifact is None:
            return None
        task = await self._specs.of_task(trigger.task)
        types = {entry.key: entry.value.type for entry in task.task_template.interface.inputs.variables}
        message = run_service_pb2.CreateRunRequest(source=run_definition_pb2.RUN_SOURCE_ARTIFACT_TRIGGER)
        message.run_spec.CopyFrom(trigger.spec_message().run_spec)
        if artifact.source.HasField("task_action"):
            relation = message.run_spec.relation
            relation.related_to.CopyFrom(artifact.source.task_action.action.run)
            relation.relation_type = run_pb2.RELATION_TYPE_ON_ARTIFACT
        if literals := inputs(trigger.automation_message().artifact, artifact, types):
            message.inputs.literals.extend(literals)
        return message


def inputs(
    wanted: common_pb2.ArtifactTrigger, artifact: artifact_pb2.ArtifactSpec, types: _Types
) -> list[common_pb2.NamedLiteral]:
    """What ``wanted`` binds, as the task's inputs of ``types`` take it. A partition that ``artifact`` lacks is left out."""
    found = []
    if name := wanted.input_arg:
        found.append(common_pb2.NamedLiteral(name=name, value=fitted(artifact.value, artifact.type, types.get(name))))
    for name, key in sorted(wanted.partition_input_args.items()):
        if (value := _partition(artifact, key, types.get(name))) is not None:
            found.append(common_pb2.NamedLiteral(name=name, value=value))
    return found


def fitted(
    value: literals_pb2.Literal, kind: types_pb2.LiteralType, wanted: types_pb2.LiteralType | None
) -> literals_pb2.Literal:
    """``value`` of type ``kind``; for an input that takes one of several types (an optional one, say), as one of those."""
    if wanted is None or wanted.WhichOneof("type") != "union_type" or value.scalar.HasField("union"):
        return value
    variant = next((each for each in wanted.union_type.variants if _alike(each, kind)), None)
    if variant is None:
        return value
    one_of = literals_pb2.Literal(hash=value.hash, metadata=value.metadata)
    if value.HasField("artifact_id"):
        one_of.artifact_id.CopyFrom(value.artifact_id)
    one_of.scalar.union.value.CopyFrom(value)
    one_of.scalar.union.type.CopyFrom(variant)
    return one_of


def _alike(one: types_pb2.LiteralType, other: types_pb2.LiteralType) -> bool:
    kind = one.WhichOneof("type")
    if kind != other.WhichOneof("type"):
        return False
    if kind == "blob":
        return bool(one.blob.dimensionality == other.blob.dimensionality)
    return kind != "simple" or bool(one.simple == other.simple)


def _partition(
    artifact: artifact_pb2.ArtifactSpec, key: str, wanted: types_pb2.LiteralType | None
) -> literals_pb2.Literal | None:
    literal = literals_pb2.Literal()
    primitive = literal.scalar.primitive
    if artifact.HasField("time_partition") and artifact.time_partition.key == key:
        if wanted is not None and wanted.simple == types_pb2.STRING:
            primitive.string_value = _text(artifact.time_partition)
        else:
            primitive.datetime.CopyFrom(artifact.time_partition.value.time_value)
    elif key in artifact.partitions.value:
        primitive.string_value = artifact.partitions.value[key].static_value
    else:
        return None
    return literal


def _text(partition: artifact_id_pb2.TimePartition) -> str:
    """As the SDK's command line takes it."""
    at: datetime = partition.value.time_value.ToDatetime(tzinfo=UTC)
    fine = partition.granularity in (artifact_id_pb2.MINUTE, artifact_id_pb2.HOUR)
    return at.isoformat().replace("+00:00", "Z") if fine else at.date().isoformat()
