"""What is asked of artifacts, checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flyteidl2.artifact import artifact_pb2
from flyteidl2.core import artifact_id_pb2

from flyte_unified.artifacts.model import LATEST, ArtifactKey, NameKey, Wanted, floored, schema_of
from flyte_unified.core.clock import micros
from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.ids import ActionKey, action_key, printable, scope_part

MAX_VALUE = 1000
"""Characters of a partition's value, and of a reference: what lists can be filtered by."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_MAX_DESCRIPTION = 2048
_MAX_KEY = 64
_MAX_KEYS = 16
_MAX_PARENTS = 32
_GRANULARITIES = (
    artifact_id_pb2.MINUTE,
    artifact_id_pb2.HOUR,
    artifact_id_pb2.DAY,
    artifact_id_pb2.WEEK,
    artifact_id_pb2.MONTH,
)


def name_key(message: artifact_pb2.ArtifactName, *, field: str) -> NameKey:
    """Raises InvalidArgument naming the part of ``field`` that is wrong."""
    return NameKey(
        scope_part(message.project, field=f"{field}.project"),
        scope_part(message.domain, field=f"{field}.domain"),
        name_part(message.name, field=f"{field}.name"),
    )


def artifact_key(message: artifact_pb2.ArtifactIdentifier, *, field: str = "artifact_id") -> ArtifactKey:
    """Raises InvalidArgument naming the part of ``field`` that is wrong."""
    return name_key(message.name, field=f"{field}.name").version(version_part(message.version, field=f"{field}.version"))


def name_part(value: str, *, field: str) -> str:
    """The name of an artifact. Raises InvalidArgument."""
    printable(value, field=field)
    if not _NAME.fullmatch(value):
        raise InvalidArgument(f"{field}: {value!r} may hold letters, digits, '.', '_' and '-' only")
    return value


def version_part(value: str, *, field: str) -> str:
    """The name of a version. Raises InvalidArgument."""
    return printable(value, field=field)


def wanted(key: ArtifactKey, given: artifact_pb2.ArtifactSpec, *, org: str, by: str) -> Wanted:
    """The version as it is to be stored: its value stamped, its partitions at their beginnings, its parents in full.

    Raises InvalidArgument naming the field.
    """
    if key.version == LATEST:
        raise InvalidArgument(f"artifact_id.version: {LATEST!r} is the name of whichever version is the newest")
    if given.value.WhichOneof("value") is None:
        raise InvalidArgument("spec.value is empty")
    if given.type.WhichOneof("type") is None:
        raise InvalidArgument("spec.type is empty")
    spec = artifact_pb2.ArtifactSpec()
    spec.CopyFrom(given)
    spec.value.artifact_id.CopyFrom(key.stamp(org))
    _check_info(spec.info)
    source = _source(spec.source, key, org=org)
    _complete_parents(spec.parent_artifacts, key, org=org)
    _check_partitions(spec)
    return Wanted(key=key, spec=spec, schema=schema_of(spec), by=by, source=source)


def schema(message: artifact_pb2.ArtifactPartitionSchema) -> artifact_pb2.ArtifactPartitionSchema:
    """The schema, complete. Raises InvalidArgument naming the part of ``partition_schema`` that is wrong."""
    complete = artifact_pb2.ArtifactPartitionSchema()
    complete.CopyFrom(message)
    names = list(message.partition_keys)
    if message.HasField("time_partition"):
        time = complete.time_partition
        time.granularity = _granularity(time.granularity, field="partition_schema.time_partition.granularity")
        _check_key(time.key, field="partition_schema.time_partition.key")
        names.append(time.key)
    for index, name in enumerate(message.partition_keys):
        _check_key(name, field=f"partition_schema.partition_keys[{index}]")
        if names.count(name) > 1:
            raise InvalidArgument(f"partition_schema.partition_keys[{index}]: {name!r} is there twice")
    _check_number(message.partition_keys, field="partition_schema.partition_keys")
    return complete


def _check_info(info: artifact_id_pb2.ArtifactInfo) -> None:
    if len(info.description) > _MAX_DESCRIPTION:
        raise InvalidArgument(f"spec.info.description has more than {_MAX_DESCRIPTION} characters")
    for key, value in info.user_metadata.items():
        if not key or "\0" in key + value:
            raise InvalidArgument(f"spec.info.user_metadata: {key[:_MAX_KEY]!r}: empty keys and NUL characters are not allowed")


def _source(source: artifact_pb2.ArtifactSource, key: ArtifactKey, *, org: str) -> ActionKey | None:
    """The action that made it; what it leaves out of its scope is the artifact's."""
    if source.WhichOneof("source") == "external_ref":
        printable(source.external_ref, field="spec.source.external_ref", limit=MAX_VALUE)
    if source.WhichOneof("source") != "task_action":
        return None
    run = source.task_action.action.run
    run.org, run.project, run.domain = run.org or org, run.project or key.project, run.domain or key.domain
    action = action_key(source.task_action.action, field="spec.source.task_action.action")
    if action[:2] != key[:2]:
        raise InvalidArgument(f"spec.source.task_action.action.run: {action} is not in the artifact's project and domain")
    return action


def _complete_parents(parents: Iterable[artifact_id_pb2.ArtifactVersionId], key: ArtifactKey, *, org: str) -> None:
    """What a parent leaves out is as with its child. It need not exist."""
    for index, parent in enumerate(parents):
        field = f"spec.parent_artifacts[{index}]"
        if index == _MAX_PARENTS:
            raise InvalidArgument(f"spec.parent_artifacts has more than {_MAX_PARENTS} artifacts")
        of = parent.key
        of.org, of.project, of.domain = of.org or org, of.project or key.project, of.domain or key.domain
        of.name = of.name or key.name
        scope_part(of.project, field=f"{field}.key.project")
        scope_part(of.domain, field=f"{field}.key.domain")
        name_part(of.name, field=f"{field}.key.name")
        version_part(parent.version, field=f"{field}.version")
        if ArtifactKey(of.project, of.domain, of.name, parent.version) == key:
            raise InvalidArgument(f"{field}: version {key.version!r} can't be its own parent")


def _check_partitions(spec: artifact_pb2.ArtifactSpec) -> None:
    if not spec.partitions.value:
        spec.ClearField("partitions")
    for key, label in spec.partitions.value.items():
        _check_key(key, field="spec.partitions")
        if label.WhichOneof("value") != "static_value":
            raise InvalidArgument(f"spec.partitions: the value of {key!r} is no static_value")
        printable(label.static_value, field=f"spec.partitions[{key}]", limit=MAX_VALUE)
    _check_number(spec.partitions.value, field="spec.partitions")
    if spec.HasField("time_partition"):
        _complete_time(spec.time_partition)
        if spec.time_partition.key in spec.partitions.value:
            raise InvalidArgument(f"spec.time_partition.key: {spec.time_partition.key!r} is the key of another partition too")


def _complete_time(time: artifact_id_pb2.TimePartition) -> None:
    if time.value.WhichOneof("value") != "time_value":
        raise InvalidArgument("spec.time_partition.value is no time_value")
    time.granularity = _granularity(time.granularity, field="spec.time_partition.granularity")
    time.key = time.key or ("hour" if time.granularity == artifact_id_pb2.HOUR else "date")
    _check_key(time.key, field="spec.time_partition.key")
    at = micros(time.value.time_value, field="spec.time_partition.value.time_value")
    time.value.time_value.FromDatetime(floored(at, time.granularity))


def _granularity(value: artifact_id_pb2.Granularity, *, field: str) -> artifact_id_pb2.Granularity:
    """Days, where nothing is said."""
    value = value or artifact_id_pb2.DAY
    if value not in _GRANULARITIES:
        raise InvalidArgument(f"{field}: there is no granularity {value}")
    return value


def _check_number(found: Iterable[str], *, field: str) -> None:
    if len([*found]) > _MAX_KEYS:
        raise InvalidArgument(f"{field} has more than {_MAX_KEYS} keys")


def _check_key(value: str, *, field: str) -> None:
    printable(value, field=field, limit=_MAX_KEY, told="a partition key")
    if set(value) & {'"', "\\"}:
        raise InvalidArgument(f"{field}: {value!r}: a partition key may hold neither quotes nor backslashes")
