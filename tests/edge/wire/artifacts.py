"""Artifacts over the wire: what requests of them are made of."""

from __future__ import annotations

from typing import Any

from flyteidl2.artifact import artifact_pb2
from flyteidl2.artifact import artifact_service_pb2 as idl
from flyteidl2.common import list_pb2
from flyteidl2.core import artifact_id_pb2, literals_pb2, types_pb2
from google.protobuf.message import Message

from tests.edge.wire import world
from tests.edge.wire.world import DOMAIN, PROJECT

SERVICE = "/flyteidl2.artifact.ArtifactService/"
MONDAY = 1_789_344_000
"""Seconds: 2026-09-14T00:00:00Z"""


def name(name: str = "example") -> artifact_pb2.ArtifactName:
    return artifact_pb2.ArtifactName(org="acme", project=PROJECT, domain=DOMAIN, name=name)


def identifier(version: str, of: str = "example") -> artifact_pb2.ArtifactIdentifier:
    return artifact_pb2.ArtifactIdentifier(name=name(of), version=version)


def file(uri: str, **fields: Any) -> artifact_pb2.ArtifactSpec:
    blob = literals_pb2.Blob(uri=uri, metadata=literals_pb2.BlobMetadata(type=types_pb2.BlobType(format="csv")))
    return artifact_pb2.ArtifactSpec(
        value=literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=blob)),
        type=types_pb2.LiteralType(blob=types_pb2.BlobType(format="csv")),
        **fields,
    )


def labels(**values: str) -> artifact_id_pb2.Partitions:
    return artifact_id_pb2.Partitions(
        value={key: artifact_id_pb2.LabelValue(static_value=value) for key, value in values.items()}
    )


def day(seconds: int, key: str = "date") -> artifact_id_pb2.TimePartition:
    value = artifact_id_pb2.LabelValue(time_value={"seconds": seconds})
    return artifact_id_pb2.TimePartition(key=key, granularity=artifact_id_pb2.DAY, value=value)


def create(version: str, of: str = "example") -> idl.CreateArtifactRequest:
    """With everything that can be said of a version."""
    spec = file(
        "s3://elsewhere/events.csv",
        info=artifact_id_pb2.ArtifactInfo(
            description="one", user_metadata={"team": "red"}, card=artifact_id_pb2.ArtifactCard(uri="s3://elsewhere/card.html")
        ),
        source=artifact_pb2.ArtifactSource(task_action={"action": world.action_id("example"), "attempt": 0}),
        partitions=labels(region="us"),
        time_partition=day(MONDAY + 7200),
        parent_artifacts=[artifact_id_pb2.ArtifactVersionId(version="0")],
    )
    return idl.CreateArtifactRequest(artifact_id=identifier(version, of), spec=spec)


def examples() -> dict[str, Message]:
    """A valid request of every RPC."""
    listed = list_pb2.ListRequest(
        limit=10,
        filters=[world.where("partition.region", "us"), world.where("user_metadata.team", "red")],
        sort_by_fields=[list_pb2.Sort(key="created_at", direction=list_pb2.Sort.DESCENDING)],
    )
    project = world.project_id()
    schema = artifact_pb2.ArtifactPartitionSchema(partition_keys=["region"])
    schema.time_partition.key, schema.time_partition.granularity = "date", artifact_id_pb2.DAY
    return {
        "CreateArtifact": create("1"),
        "GetArtifact": idl.GetArtifactRequest(name=name(), version="1"),
        "ListArtifacts": idl.ListArtifactsRequest(
            request=listed, project_id=project, name="example", latest_per_partition=True
        ),
        "ListArtifactNames": idl.ListArtifactNamesRequest(
            request=list_pb2.ListRequest(limit=10, filters=[world.where("name", "example")]), project_id=project
        ),
        "ListArtifactMetadataKeys": idl.ListArtifactMetadataKeysRequest(project_id=project, name="example"),
        "DeclareArtifact": idl.DeclareArtifactRequest(name=name(), partition_schema=schema),
        "GetArtifactSchema": idl.GetArtifactSchemaRequest(name=name()),
        "ListPartitionValues": idl.ListPartitionValuesRequest(
            request=list_pb2.ListRequest(limit=10), project_id=project, name="example", key="region"
        ),
        "DeleteArtifact": idl.DeleteArtifactRequest(artifact_id=identifier("spare")),
    }
