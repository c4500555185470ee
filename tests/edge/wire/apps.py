"""Requests about apps. They are pinned to a cluster far away, so that nothing is started for them."""

from __future__ import annotations

from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_logs_payload_pb2, replica_definition_pb2
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.common import identifier_pb2, list_pb2
from google.protobuf.message import Message

from tests.edge.wire import world

SERVICE = "/flyteidl2.app.AppService/"
CLUSTER = "far-away"


def app_id(name: str = "example") -> idl.Identifier:
    return idl.Identifier(org="acme", project=world.PROJECT, domain=world.DOMAIN, name=name)


def app(name: str = "example", *, revision: int = 0) -> idl.App:
    """A wanted one."""
    asked = idl.App(metadata=idl.Meta(id=app_id(name), revision=revision, labels={"team": "red"}, code_bundle_uri="/code"))
    spec = asked.spec
    spec.container.command.extend(["sleep", "3600"])
    spec.container.env.add(key="A", value="b")
    spec.container.ports.add(container_port=8080, name="h2c")
    spec.autoscaling.replicas.max = 1
    spec.autoscaling.scaledown_period.seconds = 60
    spec.ingress.SetInParent()
    spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    spec.cluster = CLUSTER
    spec.security_context.secrets.add(key="none")
    spec.profile.type = "connector"
    spec.timeouts.request_timeout.seconds = 60
    consumed = spec.inputs.items.add(name="model").artifact_id
    consumed.key.project, consumed.key.domain, consumed.key.name = "p", "d", "model"
    consumed.version = "1"
    return asked


def create(name: str = "example") -> payload.CreateRequest:
    return payload.CreateRequest(app=app(name))


def told(name: str = "example") -> idl.App:
    """What a cluster reports."""
    asked = app(name, revision=1)
    condition = asked.status.conditions.add(deployment_status=idl.Status.DEPLOYMENT_STATUS_ACTIVE, message="it runs")
    condition.last_transition_time.seconds = 1
    asked.status.current_replicas = 1
    return asked


def examples() -> dict[str, Message]:
    """Of AppService."""
    page = list_pb2.ListRequest(limit=10, filters=[world.where("status_phase", "ACTIVE")])
    return {
        "Create": create(),
        "Get": payload.GetRequest(app_id=app_id()),
        "Update": payload.UpdateRequest(app=app(revision=1), reason="why not"),
        "UpdateStatus": payload.UpdateStatusRequest(app=told()),
        "Delete": payload.DeleteRequest(app_id=app_id("none")),
        "List": payload.ListRequest(request=page, project=world.project_id(), include_total_count=True),
        "Watch": payload.WatchRequest(app_id=app_id()),
        "Lease": payload.LeaseRequest(id=identifier_pb2.ClusterIdentifier(organization="acme", name=CLUSTER)),
    }


def logs() -> dict[str, Message]:
    """Of AppLogsService."""
    replica = replica_definition_pb2.ReplicaIdentifier(app_id=app_id(), name="example-1")
    return {"TailLogs": app_logs_payload_pb2.TailLogsRequest(replica_id=replica)}
