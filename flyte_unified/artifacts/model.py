"""What an artifact is: a typed value with a name, a version and, maybe, a place in a partition. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson
from flyteidl2.artifact import artifact_pb2
from flyteidl2.core import artifact_id_pb2, literals_pb2

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import ActionKey

LATEST = "latest"
"""In the place of a version: the newest one. So no version is called so."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NameKey(NamedTuple):
    """What versions belong to."""

    project: str
    domain: str
    name: str

    def version(self, version: str) -> ArtifactKey:
        return ArtifactKey(*self, version)

    def __str__(self) -> str:
        return f"{self.name!r} of {self.project}/{self.domain}"


class ArtifactKey(NamedTuple):
    """One version of an artifact."""

    project: str
    domain: str
    name: str
    version: str

    @property
    def name_key(self) -> NameKey:
        return NameKey(self.project, self.domain, self.name)

    def stamp(self, org: str) -> artifact_id_pb2.ArtifactVersionId:
        """What tells from which artifact a value comes, wherever it goes."""
        key = artifact_id_pb2.ArtifactKey(org=org, project=self.project, domain=self.domain, name=self.name)
        return artifact_id_pb2.ArtifactVersionId(key=key, version=self.version)

    def __str__(self) -> str:
        return f"{self.name}@{self.version} of {self.project}/{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A version that is to be, checked and complete."""

    key: ArtifactKey
    spec: artifact_pb2.ArtifactSpec
    """As it is to be stored"""
    schema: artifact_pb2.ArtifactPartitionSchema
    """Of its own partitions"""
    by: str
    source: ActionKey | None = None

    @property
    def partitions(self) -> dict[str, str]:
        """Those that are text."""
        return {key: label.static_value for key, label in self.spec.partitions.value.items()}

    @property
    def time(self) -> Micros | None:
        """The beginning of its time partition."""
        if not self.spec.HasField("time_partition"):
            return None
        at = self.spec.time_partition.value.time_value
        return Micros(at.seconds * 1_000_000)

    @property
    def partition(self) -> str:
        """What all versions of one partition have in common."""
        told = [self.time, sorted(self.partitions.items())]
        return hashlib.blake2b(orjson.dumps(told), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A version as it is stored."""

    key: ArtifactKey
    spec: artifact_pb2.ArtifactSpec
    mismatch: artifact_pb2.PartitionSchemaMismatch | None
    """Where a task produced it with other partition keys than its name has"""
    created_by: str
    created_at: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What is known of an artifact beside its versions."""

    key: NameKey
    schema: artifact_pb2.ArtifactPartitionSchema
    declared: bool
    versions: int
    latest_at: Micros | None


@dataclass(frozen=True, slots=True)
class Group:
    """A name as lists show it."""

    name: Name
    latest: Artifact
    latest_time: Micros | None
    """The newest time partition that any version is in"""


def floored(at: Micros, granularity: int) -> datetime:
    """The beginning of the partition that holds ``at``; a week begins on Monday."""
    time = (_EPOCH + timedelta(microseconds=at)).replace(second=0, microsecond=0)
    if granularity == artifact_id_pb2.MINUTE:
        return time
    time = time.replace(minute=0)
    if granularity == artifact_id_pb2.HOUR:
        return time
    time = time.replace(hour=0)
    if granularity == artifact_id_pb2.WEEK:
        return time - timedelta(days=time.weekday())
    return time.replace(day=1) if granularity == artifact_id_pb2.MONTH else time


def schema_of(spec: artifact_pb2.ArtifactSpec) -> artifact_pb2.ArtifactPartitionSchema:
    """The partition keys that a version has."""
    schema = artifact_pb2.ArtifactPartitionSchema(partition_keys=sorted(spec.partitions.value))
    if spec.HasField("time_partition"):
        schema.time_partition.key = spec.time_partition.key
        schema.time_partition.granularity = spec.time_partition.granularity
    return schema


def mismatch(
    expected: artifact_pb2.ArtifactPartitionSchema, actual: artifact_pb2.ArtifactPartitionSchema
) -> artifact_pb2.PartitionSchemaMismatch | None:
    """What is wrong where the keys differ, whatever their order."""
    if expected.time_partition == actual.time_partition and set(expected.partition_keys) == set(actual.partition_keys):
        return None
    message = f"the artifact has {_told(expected)}, not {_told(actual)}; other keys are another artifact's"
    return artifact_pb2.PartitionSchemaMismatch(expected=expected, actual=actual, message=message)


def keys(schema: artifact_pb2.ArtifactPartitionSchema) -> list[str]:
    """Of all partitions, that of time first."""
    return [*([schema.time_partition.key] if schema.time_partition.key else []), *schema.partition_keys]


def _told(schema: artifact_pb2.ArtifactPartitionSchema) -> str:
    told = list(schema.partition_keys)
    if schema.HasField("time_partition"):
        granularity = artifact_id_pb2.Granularity.Name(schema.time_partition.granularity).lower()
        told.insert(0, f"{schema.time_partition.key} ({granularity})")
    return f"the partition keys {', '.join(told)}" if told else "no partition keys"


def differences(known: artifact_pb2.ArtifactSpec, wanted: artifact_pb2.ArtifactSpec) -> list[str]:
    """Fields in which a version that exists is another than what is to be created under its name.

    A content's hash stands for it, wherever it lies. What made it is no part of it: a task that is tried again publishes the
    same.
    """
    same: Mapping[str, bool] = {
        "value": _content(known) == _content(wanted),
        **{
            name: getattr(known, name) == getattr(wanted, name)
            for name in ("type", "info", "partitions", "time_partition", "parent_artifacts")
        },
        "source": known.source.external_ref == wanted.source.external_ref,
    }
    return [f"spec.{name}" for name, equal in same.items() if not equal]


def _content(spec: artifact_pb2.ArtifactSpec) -> bytes:
    if spec.value.hash:
        return str(spec.value.hash).encode()
    value = literals_pb2.Literal()
    value.CopyFrom(spec.value)
    value.ClearField("artifact_id")
    return bytes(value.SerializeToString(deterministic=True))
