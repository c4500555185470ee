"""Tasks that a connector runs: a query in a warehouse, a job in another cloud.

A type that the settings give to a connector is its, even where the task brings a container: such a task may run its command
elsewhere. A connector that is named without types is asked, at the launch, for what nothing else here could run; so the
operator need not list what connectors know best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flyteidl2.connector import connector_pb2
from flyteidl2.core import identifier_pb2, security_pb2, tasks_pb2
from google.protobuf import struct_pb2

from flyte_unified.core.errors import InvalidArgument
from flyte_unified.core.templates import render
from flyte_unified.net.connectors import Endpoint
from flyte_unified.plugins import container
from flyte_unified.plugins.api import Job, TaskContext
from flyte_unified.plugins.pods import metadata

_SETTING = "connectors.endpoints"
_PROGRAMS = frozenset({"container", "pod", "python", "python-task", "raw-container", "sidecar"})
"""Types whose program may be an image's own."""


class Connectors:
    """``endpoints``: ``type=address`` or ``address``, as in the settings. Raises InvalidArgument for what is neither.

    ``deployed`` has the addresses of those that are apps of a project's domain.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        deployed: Callable[[str, str], Sequence[str]] = lambda *_: (),
    ) -> None:
        self._deployed = deployed
        self._given: dict[str, str] = {}
        self._asked: list[str] = []
        for entry in endpoints:
            task_type, separator, address = entry.rpartition("=")
            try:
                Endpoint.parse(address.strip())
            except InvalidArgument as error:
                raise InvalidArgument(f"{_SETTING}: {error.message}") from error
            if not separator:
                self._asked.append(address.strip())
            elif self._given.setdefault(task_type.strip(), address.strip()) != address.strip():
                raise InvalidArgument(f"{_SETTING}: tasks of type {task_type.strip()!r} are given to two connectors")

    def describe(self, context: TaskContext) -> Job | None:
        """The job of a task that a connector runs; None for others."""
        template = context.spec.task_template
        if (given := self._given.get(template.type)) is not None:
            addresses: tuple[str, ...] = (given,)
        elif nothing_to_run(template):
            addresses = (*self._deployed(*context.action.key[:2]), *self._asked)
        else:
            return None
        if not addresses:
            return None
        known = container.variables(context)
        return Job(
            connectors=addresses,
            request=_request(context, known),
            input_uri=context.action.input_uri,
            links=container.links(context, known),
        )


def nothing_to_run(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether a task brings no program: the SDK gives each an image, but a connector's no command."""
    if template.type in _PROGRAMS or template.HasField("k8s_pod"):
        return False
    return not template.container.command and not template.container.args and not template.container.data_config.enabled


def _request(context: TaskContext, known: Mapping[str, str]) -> connector_pb2.CreateTaskRequest:
    request = connector_pb2.CreateTaskRequest(
        template=context.spec.task_template,
        output_prefix=context.output_prefix,
        task_execution_metadata=_execution(context),
        connection=_connection(context),
    )
    if request.template.HasField("container"):
        command = request.template.container
        command.command[:] = render(tuple(command.command), known)
        command.args[:] = render(tuple(command.args), known)
    return request


def _connection(context: TaskContext) -> security_pb2.Connection:
    """What the task's own configuration says of it. Secrets by their names: whoever calls the connector puts values there."""
    custom = context.spec.task_template.custom
    return security_pb2.Connection(
        task_type=custom.fields["task_type"].string_value if "task_type" in custom.fields else "",
        secrets=_mapping(custom, "secrets"),
        configs=_mapping(custom, "configs"),
    )


def _execution(context: TaskContext) -> connector_pb2.TaskExecutionMetadata:
    template, run, action = context.spec.task_template, context.run_spec, context.action
    key, own = action.key, template.metadata.metadata
    identity = security_pb2.Identity(execution_identity=context.run.created_by)
    identity.MergeFrom(template.security_context.run_as)
    identity.MergeFrom(run.security_context.run_as)
    told = connector_pb2.TaskExecutionMetadata(
        namespace=known if (known := context.namespace) else f"{key.project}-{key.domain}",
        labels={**own.labels, **run.labels.values, **metadata.ours(context)},
        annotations={**own.annotations, **run.annotations.values},
        k8s_service_account=identity.k8s_service_account,
        environment_variables=_environment(context),
        max_attempts=template.metadata.retries.retries + 1,
        interruptible=run.interruptible.value if run.HasField("interruptible") else template.metadata.interruptible,
        identity=identity,
    )
    execution = told.task_execution_id
    execution.retry_attempt = action.attempt - 1
    execution.task_id.CopyFrom(
        identifier_pb2.Identifier(
            resource_type=identifier_pb2.TASK,
            project=action.task.project or key.project,
            domain=action.task.domain or key.domain,
            name=action.task.name,
            version=action.task.version,
        )
    )
    execution.node_execution_id.node_id = key.name
    execution.node_execution_id.execution_id.project = key.project
    execution.node_execution_id.execution_id.domain = key.domain
    execution.node_execution_id.execution_id.name = key.run
    return told


def _environment(context: TaskContext) -> dict[str, str]:
    """The user's; and what the SDK's runtime needs, its way to this server included, where the connector is to start one."""
    asked = {entry.key: entry.value for entry in context.run_spec.envs.values}
    if not context.spec.task_template.HasField("container"):
        return asked
    return {**asked, **container.system(context, actions=asked.get(container.ACTIONS, "1"))}


def _mapping(custom: struct_pb2.Struct, name: str) -> dict[str, str]:
    """The texts of an object in a task's configuration."""
    if name not in custom.fields:
        return {}
    fields = custom.fields[name].struct_value.fields
    return {key: value.string_value for key, value in fields.items() if value.WhichOneof("kind") == "string_value"}
