"""What a CreateRun asks for, checked and complete. Pure.

``buf.validate`` rules of the IDL are not applied as they stand: real clients break them (an empty org, for one). What is
checked here is what we rely on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from google.protobuf.message import Message

from flyte_unified.core.clock import Micros, micros, timestamp
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import RunKey, chosen_run_name, new_run_name, run_key, scope_part
from flyte_unified.dataproxy.api import check_id, check_inputs, fill_defaults, inputs_hash
from flyte_unified.ledger.api import EncodedSpec

_PARTS = ("task", "inputs", "run_spec")
_PART_BYTES = 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where the run is to be. ``chosen``: the caller named it."""

    key: RunKey
    chosen: bool
    org: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """The run's inputs: ``data`` to be stored, or where they are (``uri``) already. ``hashed`` is what a cache key takes."""

    hashed: str
    data: bytes | None = None
    uri: str = ""


def target(message: run_service_pb2.CreateRunRequest) -> Target:
    if message.source == run_definition_pb2.RUN_SOURCE_TRACKED:
        raise InvalidArgument("source: TRACKED is of runs that TrackedRunService makes")
    match message.WhichOneof("id"):
        case "run_id":
            run = message.run_id
            project = scope_part(run.project, field="run_id.project")
            domain = scope_part(run.domain, field="run_id.domain")
            return Target(RunKey(project, domain, chosen_run_name(run.name)), True, run.org)
        case "project_id":
            place = message.project_id
            project = scope_part(place.name, field="project_id.name")
            domain = scope_part(place.domain, field="project_id.domain")
            return Target(RunKey(project, domain, new_run_name()), False, place.organization)
    raise InvalidArgument("id: one of run_id and project_id must be set")


def check_task(spec: task_definition_pb2.TaskSpec) -> None:
    """Raises InvalidArgument naming the field of ``task_spec`` that is wrong."""
    template = spec.task_template
    if not template.type:
        raise InvalidArgument("task_spec.task_template.type is empty")
    if not template.HasField("interface"):
        raise InvalidArgument("task_spec.task_template.interface is missing; a task without inputs has an empty one")
    check_id(template.id)


def inputs(message: run_service_pb2.CreateRunRequest, spec: task_definition_pb2.TaskSpec) -> Inputs:
    """The inputs, complete with the task's defaults. Raises InvalidArgument naming the input that is wrong."""
    if message.WhichOneof("input_wrapper") == "offloaded_input_data":
        offloaded: common_run_pb2.OffloadedInputData = message.offloaded_input_data
        if not offloaded.uri:
            raise InvalidArgument("offloaded_input_data.uri is empty")
        return Inputs(offloaded.inputs_hash, uri=offloaded.uri)
    complete: common_pb2.Inputs = fill_defaults(message.inputs, spec)
    check_inputs(complete, spec)
    ignored = frozenset(spec.task_template.metadata.cache_ignore_input_vars)
    return Inputs(inputs_hash(complete, ignored), data=_bytes(complete))


def run_spec(message: run_service_pb2.CreateRunRequest, *, now: Micros) -> tuple[run_pb2.RunSpec, Micros]:
    """The run spec as it is stored, and the run's start time: the caller's, else ``now``. Raises InvalidArgument."""
    spec = run_pb2.RunSpec()
    spec.CopyFrom(message.run_spec)
    start = now
    if message.HasField("run_start_time"):
        start = micros(message.run_start_time, field="run_start_time")
    elif spec.HasField("run_start_time"):
        start = micros(spec.run_start_time, field="run_spec.run_start_time")
    spec.run_start_time.CopyFrom(timestamp(start))
    deployed = message.WhichOneof("task") != "task_spec"
    spec.task_spec_source = run_pb2.TASK_SPEC_SOURCE_DEPLOYED if deployed else run_pb2.TASK_SPEC_SOURCE_EPHEMERAL
    if spec.HasField("related_to") and not spec.HasField("relation"):
        spec.relation.related_to.CopyFrom(spec.related_to)
        spec.relation.relation_type = common_run_pb2.RELATION_TYPE_RERUN
    if spec.relation.relation_type == common_run_pb2.RELATION_TYPE_RECOVER:
        run_key(spec.relation.related_to, field="run_spec.relation.related_to")  # each of its actions asks for that run
    return spec, start


def content(message: run_service_pb2.CreateRunRequest, spec: EncodedSpec, given: Inputs) -> str:
    """What a repeated CreateRun is compared by: a digest of each of the task, the inputs and the run spec, in hex."""
    told_inputs = given.data if given.data is not None else f"{given.uri}\n{given.hashed}".encode()
    told_spec = _bytes(message.run_spec) + b"\n" + _bytes(message.run_start_time)
    parts = (spec.raw, told_inputs, told_spec)
    return "".join(hashlib.blake2b(part, digest_size=_PART_BYTES).hexdigest() for part in parts)


def differences(one: str, other: str) -> list[str]:
    """The parts in which two contents differ."""
    length = 2 * _PART_BYTES
    return [part for index, part in enumerate(_PARTS) if one[index * length :][:length] != other[index * length :][:length]]


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
