"""The system's task ``build-image`` as clients find it: the interface that the SDK's remote builder calls."""

from __future__ import annotations

import hashlib

from flyteidl2.core import identifier_pb2, interface_pb2, types_pb2
from flyteidl2.task import task_definition_pb2

from flyte_unified.core.images import BUILD_IMAGE, INPUTS, OUTPUT, TARGET
from flyte_unified.ledger.api import TaskId

DOMAIN = "production"
"""Where the SDK looks for it unless its user names another domain."""

Seed = tuple[TaskId, task_definition_pb2.TaskSpec]


def build_image(project: str, domain: str, *, cached: bool) -> Seed:
    """Its version is its content's: a server with another one deploys it as the newest.

    ``cached``: an address that it gave once is good for the same image. A registry keeps what it has; a machine may not. The
    name says which image, as its tag is a digest of the layers; their spec may be other bytes each time, as maps have no order.
    """
    found = task_definition_pb2.TaskSpec(short_name=BUILD_IMAGE)
    found.documentation.short_description = "Builds an image, for the SDK's remote image builder."
    template = found.task_template
    template.type = BUILD_IMAGE
    template.metadata.discoverable = template.metadata.cache_serializable = cached
    template.metadata.discovery_version = "1" if cached else ""
    template.metadata.cache_ignore_input_vars.extend(name for name in INPUTS if cached and name != TARGET)
    text = types_pb2.LiteralType(simple=types_pb2.STRING)
    template.interface.inputs.variables.extend(_variable(name, text) for name in INPUTS)
    template.interface.outputs.variables.append(_variable(OUTPUT, text))
    task = TaskId(project, domain, BUILD_IMAGE, hashlib.sha256(found.SerializeToString(deterministic=True)).hexdigest()[:12])
    template.id.CopyFrom(identifier_pb2.Identifier(resource_type=identifier_pb2.TASK, **task._asdict()))
    return task, found


def _variable(name: str, kind: types_pb2.LiteralType) -> interface_pb2.VariableEntry:
    return interface_pb2.VariableEntry(key=name, value=interface_pb2.Variable(type=kind))
