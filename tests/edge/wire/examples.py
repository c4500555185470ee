"""One valid request of every RPC that the server answers, and every request that differs from it in one field."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from flyteidl2.actions import actions_service_pb2 as actions_pb2
from flyteidl2.app import app_payload_pb2
from flyteidl2.artifact import artifact_service_pb2
from flyteidl2.auth import auth_service_pb2, identity_pb2
from flyteidl2.cacheservice import cacheservice_pb2 as cache_pb2
from flyteidl2.cacheservice.v2 import cacheservice_pb2 as cache_v2_pb2
from flyteidl2.cluster import payload_pb2 as cluster_pb2
from flyteidl2.common import identifier_pb2, list_pb2, phase_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy_pb2
from flyteidl2.imagebuilder import payload_pb2 as image_pb2
from flyteidl2.org import domain_service_pb2 as domain_pb2
from flyteidl2.project import project_service_pb2 as project_pb2
from flyteidl2.secret import definition_pb2 as secret_pb2
from flyteidl2.secret import payload_pb2 as secret_payload_pb2
from flyteidl2.settings import settings_definition_pb2 as settings_pb2
from flyteidl2.settings import settings_service_pb2
from flyteidl2.task import common_pb2, task_definition_pb2, task_service_pb2
from flyteidl2.trigger import trigger_definition_pb2, trigger_service_pb2
from flyteidl2.workflow import (
    events_proxy_service_pb2,
    internal_run_service_pb2,
    queue_service_pb2,
    run_definition_pb2,
    run_logs_service_pb2,
    run_service_pb2,
    state_service_pb2,
    tracked_run_service_pb2,
    translator_service_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from flyte_unified.images.environments import Environments
from tests.edge.wire import apps, artifacts, world
from tests.edge.wire.world import DOMAIN, PROJECT, World

RUN = "example"
"""A run that is under way, with the child ``n0`` that sleeps, the condition ``c0`` and the trace ``t0``."""
DONE = "done"
"""A run that has succeeded."""
TRACKED = "local-example"
"""A run that its client carries out."""
SPARE = "spare"
"""A run like ``example`` that nobody minds the end of."""

_TEXTS = (
    "x" * 10_000,
    "a\0b",
    "line\nline\x1b[31m",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "żółw 🐢 \u202e",
    "99999999999999999999",
    "labels.",
    "2026-01-01T00:00:00Z",
    "{}",
)
_TIMES = ((2**63 - 1, 0), (-(2**63), 0), (253_402_300_800, 0), (-1, -1), (0, 2**31 - 1))
_NUMBERS: dict[int, Sequence[Any]] = {
    FieldDescriptor.TYPE_BOOL: (True, False),
    FieldDescriptor.TYPE_BYTES: (b"", b"\xff\xfe", b"x" * 10_000),
    FieldDescriptor.TYPE_ENUM: (0, 1, 99, -1, 2**31 - 1),
    FieldDescriptor.TYPE_INT32: (0, -1, 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (0, -1, 2**63 - 1, -(2**63)),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FLOAT: (0.0, float("nan"), float("inf")),
    FieldDescriptor.TYPE_DOUBLE: (0.0, float("nan"), float("inf"), 1e308),
    FieldDescriptor.TYPE_STRING: _TEXTS,
}
_DEEPEST = 6
_NEW = {
    "CreateRun": "run_id.name",
    "Enqueue": "action.action_id.name",
    "EnqueueAction": "action_id.name",
    "RecordAction": "action_id.name",
    "DeployTask": "task_id.version",
    "DeployTrigger": "name.name",
    "CreateProject": "project.id",
    "CreateDomain": "id",
}
"""What names the new thing in requests that make one: each request makes its own."""


class Example(NamedTuple):
    """A request. ``path`` names the field that is unusual, where one is."""

    procedure: str
    message: Message
    path: str = ""


def _image(environments: Environments) -> None:
    """As if one had been built."""
    with environments.alone("0" * 32, waiting=lambda: None), environments.new("0" * 32) as path:
        (path / "bin").mkdir()
        (path / "bin" / "python").touch()
        environments.name(
            "image:1", environments.add(path, key="0" * 32, variables=[], run=f"{world.PROJECT}/{world.DOMAIN}/{RUN}")
        )


async def prepare(there: World) -> None:
    """What the examples speak of."""
    _image(Environments(Path(there.directory) / "images"))
    for run in (RUN, SPARE):
        await there.create(run)
        await there.enqueue(run, "n0")
        await there.condition(run, "c0")
        await there.send(world.ACTIONS + "Enqueue", world.trace_request(run, "t0"), actions_pb2.EnqueueResponse)
    await there.send(world.TRACKED + "CreateRun", _tracked()["CreateRun"], run_service_pb2.CreateRunResponse)
    await there.create(DONE, timedelta(0))
    assert (await there.ended(DONE)).status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED
    await there.send(
        "/flyteidl2.task.TaskService/DeployTask",
        task_service_pb2.DeployTaskRequest(task_id=_task_id(), spec=world.nap_spec("deployed")),
        task_service_pb2.DeployTaskResponse,
    )
    await there.send(
        "/flyteidl2.trigger.TriggerService/DeployTrigger",
        trigger_service_pb2.DeployTriggerRequest(
            name=world.trigger_name("example", "deployed"), spec=_trigger_spec(), automation_spec=_daily()
        ),
        trigger_service_pb2.DeployTriggerResponse,
    )
    await there.send(apps.SERVICE + "Create", apps.create(), app_payload_pb2.CreateResponse)
    for version in ("1", "spare"):
        await there.send(
            artifacts.SERVICE + "CreateArtifact", artifacts.create(version), artifact_service_pb2.CreateArtifactResponse
        )


async def examples(there: World) -> list[Example]:
    """Of every RPC with a handler."""
    enqueue = await there.enqueue_request(SPARE, "n1", world.HOUR)
    services: dict[str, dict[str, Message]] = {
        "actions.ActionsService": _actions(enqueue),
        "workflow.QueueService": {
            "EnqueueAction": queue_service_pb2.EnqueueActionRequest(
                **{name.name: value for name, value in enqueue.action.ListFields()}
            ),
            "AbortQueuedRun": queue_service_pb2.AbortQueuedRunRequest(run_id=world.run_id(SPARE), reason="why not"),
            "AbortQueuedAction": queue_service_pb2.AbortQueuedActionRequest(
                action_id=world.action_id(SPARE, "n0"), reason="why not"
            ),
        },
        "workflow.StateService": {
            "Put": state_service_pb2.PutRequest(action_id=world.action_id(SPARE), state="{}"),
            "Get": state_service_pb2.GetRequest(action_id=world.action_id(SPARE)),
            "Watch": state_service_pb2.WatchRequest(parent_action_id=world.action_id(RUN)),
        },
        "workflow.EventsProxyService": {"Record": events_proxy_service_pb2.RecordRequest(events=[event(SPARE, "n0")])},
        "workflow.InternalRunService": _internal(),
        "workflow.RunService": _runs(),
        "workflow.TrackedRunService": _tracked(),
        "dataproxy.DataProxyService": _data(),
        "workflow.RunLogsService": {"TailLogs": run_logs_service_pb2.TailLogsRequest(action_id=world.action_id(DONE))},
        "workflow.TranslatorService": _translator(),
        "cluster.ClusterService": {
            "SelectCluster": cluster_pb2.SelectClusterRequest(
                project_id=world.project_id(), operation=cluster_pb2.SelectClusterRequest.OPERATION_UPLOAD_INPUTS
            )
        },
        "imagebuilder.ImageService": {
            "GetImage": image_pb2.GetImageRequest(id={"name": "image:1"}, project_id=world.project_id())
        },
        "project.ProjectService": _projects(),
        "org.DomainService": _domains(),
        "secret.SecretService": _secrets(),
        "settings.SettingsService": _settings(),
        "task.TaskService": _tasks(),
        "trigger.TriggerService": _triggers(),
        "app.AppService": apps.examples(),
        "app.AppLogsService": apps.logs(),
        "artifact.ArtifactService": artifacts.examples(),
        "cacheservice.CacheService": _cache(),
        "cacheservice.v2.CacheService": _cache_v2(),
        "auth.IdentityService": {"UserInfo": identity_pb2.UserInfoRequest()},
        "auth.AuthMetadataService": {
            "GetOAuth2Metadata": auth_service_pb2.GetOAuth2MetadataRequest(),
            "GetPublicClientConfig": auth_service_pb2.GetPublicClientConfigRequest(),
        },
    }
    once = [
        Example(f"/flyteidl2.{service}/{rpc}", message) for service, rpcs in services.items() for rpc, message in rpcs.items()
    ]
    condition = world.condition_request(SPARE, "c1")
    condition.action.condition.timeout.seconds = 60
    condition.action.condition.webhook.SetInParent()
    offloaded = world.create_run("example")
    offloaded.offloaded_input_data.uri = enqueue.action.input_uri
    return [
        *once,
        Example(world.ACTIONS + "Enqueue", condition),
        Example(world.ACTIONS + "Enqueue", world.trace_request(SPARE, "t1")),
        Example(world.RUNS + "CreateRun", offloaded),
    ]


def event(run: str, name: str) -> run_definition_pb2.ActionEvent:
    told = run_definition_pb2.ActionEvent(
        id=world.action_id(run, name), attempt=1, phase=phase_pb2.ACTION_PHASE_RUNNING, cluster="far away"
    )
    told.updated_time.GetCurrentTime()
    seen = told.cluster_events.add(message="pulled the image", reason="Pulled")
    seen.occurred_at.GetCurrentTime()
    return told


def mutants(example: Example) -> Iterator[Example]:
    """The same request, each with one field changed, emptied, or set to something strange."""
    for path, change in _changes(example.message, "", _DEEPEST):
        changed = copy.deepcopy(example.message)
        if (place := _NEW.get(example.procedure.rpartition("/")[2])) is not None:
            _set(changed, place, world.new_name("m"))
        change(changed)
        yield Example(example.procedure, changed, path)


def _changes(message: Message, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for field in message.DESCRIPTOR.fields:
        path = f"{prefix}{field.name}"
        if message.DESCRIPTOR.GetOptions().map_entry or (field.message_type and field.message_type.GetOptions().map_entry):
            continue
        if field.message_type is None:
            for value in _NUMBERS.get(field.type, ()):
                yield path, lambda m, path=path, value=value: _set(m, path, value)
        elif field.message_type.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            for value in _TIMES:
                yield path, lambda m, path=path, value=value: _set_time(m, path, value)
        elif field.is_repeated:
            if depth and (inner := getattr(message, field.name)):
                yield from _changes(inner[0], f"{path}.", depth - 1)
        else:
            yield path, lambda m, path=path: _at(m, path).SetInParent()
            if depth and message.HasField(field.name):
                yield path, lambda m, path=path: _clear(m, path)
                yield from _changes(getattr(message, field.name), f"{path}.", depth - 1)


def _at(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
        if hasattr(message, "add"):
            message = message[0]
    return message


def _holder(message: Any, path: str) -> tuple[Any, str]:
    above, _, name = path.rpartition(".")
    return (_at(message, above) if above else message), name


def _set(message: Any, path: str, value: Any) -> None:
    holder, name = _holder(message, path)
    if holder.DESCRIPTOR.fields_by_name[name].is_repeated:
        getattr(holder, name)[:] = [value]
    else:
        setattr(holder, name, value)


def _set_time(message: Any, path: str, value: tuple[int, int]) -> None:
    holder, name = _holder(message, path)
    time = getattr(holder, name)
    time.SetInParent()
    time.seconds, time.nanos = value


def _clear(message: Any, path: str) -> None:
    holder, name = _holder(message, path)
    holder.ClearField(name)


def _actions(enqueue: actions_pb2.EnqueueRequest) -> dict[str, Message]:
    status = run_definition_pb2.ActionStatus(phase=phase_pb2.ACTION_PHASE_RUNNING)
    return {
        "Enqueue": enqueue,
        "WatchForUpdates": actions_pb2.WatchForUpdatesRequest(parent_action_id=world.action_id(RUN)),
        "Update": actions_pb2.UpdateRequest(action_id=world.action_id(SPARE, "n0"), attempt=1, status=status),
        "Signal": actions_pb2.SignalRequest(
            action_id=world.action_id(SPARE, "c0"), parent_action_name="a0", value=world.truth(True)
        ),
        "Abort": actions_pb2.AbortRequest(action_id=world.action_id(SPARE, "n0"), reason="why not"),
    }


def _internal() -> dict[str, Message]:
    trace = world.trace_request(SPARE, "t1").action
    record = internal_run_service_pb2.RecordActionRequest(action_id=trace.action_id, parent="a0", trace=trace.trace)
    status = run_definition_pb2.ActionStatus(phase=phase_pb2.ACTION_PHASE_RUNNING, attempts=1)
    update = internal_run_service_pb2.UpdateActionStatusRequest(action_id=world.action_id(SPARE, "n0"), status=status)
    told = internal_run_service_pb2.RecordActionEventRequest(event=event(SPARE, "n0"))
    return {
        "RecordAction": record,
        "UpdateActionStatus": update,
        "RecordActionEvents": internal_run_service_pb2.RecordActionEventsRequest(events=[event(SPARE, "n0")]),
        "RecordActionStream": internal_run_service_pb2.RecordActionStreamRequest(request=record),
        "UpdateActionStatusStream": internal_run_service_pb2.UpdateActionStatusStreamRequest(request=update, nonce=7),
        "RecordActionEventStream": internal_run_service_pb2.RecordActionEventStreamRequest(request=told, nonce=7),
    }


def _runs() -> dict[str, Message]:
    of = world.action_id
    listed = list_pb2.ListRequest(
        limit=10,
        filters=[world.where("phase", "5")],
        sort_by_fields=[list_pb2.Sort(key="created_at", direction=list_pb2.Sort.DESCENDING)],
    )
    groups = run_service_pb2.WatchGroupsRequest(project_id=world.project_id(), request=listed)
    groups.start_date.seconds = 1
    groups.end_date.seconds = 4_000_000_000
    created = world.create_run("example")
    created.run_spec.labels.values["team"] = "red"
    created.run_spec.queue = "q"
    created.run_spec.raw_data_storage.raw_data_prefix = "/somewhere"
    created.run_spec.relation.related_to.CopyFrom(world.run_id(DONE))
    metadata = created.task_spec.task_template.metadata
    metadata.retries.retries = 1
    metadata.retries.backoff.base.seconds = 1
    metadata.timeout.seconds = 60
    metadata.timeouts.deadline.seconds = 60
    return {
        "CreateRun": created,
        "AbortRun": run_service_pb2.AbortRunRequest(run_id=world.run_id(SPARE), reason="why not"),
        "AbortAction": run_service_pb2.AbortActionRequest(action_id=of(SPARE, "n0"), reason="why not"),
        "SignalEvent": run_service_pb2.SignalEventRequest(
            action_id=of(SPARE, "c0"), parent_action_name="a0", payload={"bool_value": True}
        ),
        "GetRunDetails": run_service_pb2.GetRunDetailsRequest(run_id=world.run_id(RUN)),
        "WatchRunDetails": run_service_pb2.WatchRunDetailsRequest(run_id=world.run_id(DONE)),
        "GetActionDetails": run_service_pb2.GetActionDetailsRequest(action_id=of(RUN, "c0")),
        "WatchActionDetails": run_service_pb2.WatchActionDetailsRequest(action_id=of(DONE)),
        "GetActionData": run_service_pb2.GetActionDataRequest(action_id=of(DONE)),
        "GetActionDataURIs": run_service_pb2.GetActionDataURIsRequest(action_id=of(DONE)),
        "GetActionLogContext": run_service_pb2.GetActionLogContextRequest(action_id=of(DONE), attempt=1),
        "WatchClusterEvents": run_service_pb2.WatchClusterEventsRequest(id=of(DONE), attempt=1),
        "ListRuns": run_service_pb2.ListRunsRequest(request=listed, project_id=world.project_id()),
        "ListActions": run_service_pb2.ListActionsRequest(request=listed, run_id=world.run_id(RUN)),
        "WatchRuns": run_service_pb2.WatchRunsRequest(project_id=world.project_id()),
        "WatchActions": run_service_pb2.WatchActionsRequest(
            run_id=world.run_id(RUN), filter=[world.where("NAME", "a", function=list_pb2.Filter.CONTAINS_CASE_INSENSITIVE)]
        ),
        "WatchGroups": groups,
    }


def _tracked() -> dict[str, Message]:
    """Those that RunService has, too, about a tracked run."""
    created = tracked_run_service_pb2.CreateTrackedRunRequest(
        run_id=world.run_id(TRACKED), task_spec=world.nap_spec(), labels={"team": "red"}
    )
    created.run_start_time.seconds = 1_700_000_000
    update = tracked_run_service_pb2.TrackedActionUpdate(
        event=event(TRACKED, "n0"), parent_name="a0", task=run_definition_pb2.TaskAction(spec=world.nap_spec("child"))
    )
    update.status.start_time.seconds = 1_700_000_000
    report = tracked_run_service_pb2.ReportTrackedActionsRequest(run_id=world.run_id(TRACKED), updates=[update])
    shared = _runs()
    found: dict[str, Message] = {"CreateRun": created, "ReportActions": report}
    for rpc in ("GetRunDetails", "WatchRunDetails", "ListActions", "WatchActions", "AbortRun"):
        found[rpc] = copy.deepcopy(shared[rpc])
        found[rpc].run_id.CopyFrom(world.run_id(TRACKED))  # type: ignore[attr-defined]  # each of these has one
    for rpc in ("GetActionDetails", "WatchActionDetails"):
        found[rpc] = copy.deepcopy(shared[rpc])
        found[rpc].action_id.CopyFrom(world.action_id(TRACKED))  # type: ignore[attr-defined]
    return found | {rpc: shared[rpc] for rpc in ("ListRuns", "WatchRuns")}


def _data() -> dict[str, Message]:
    location = dataproxy_pb2.CreateUploadLocationRequest(
        project=PROJECT, domain=DOMAIN, filename="file.bin", content_md5=b"m" * 16, content_length=3, filename_root="root"
    )
    location.expires_in.seconds = 60
    report = dataproxy_pb2.CreateDownloadLinkRequest(
        artifact_type=dataproxy_pb2.ARTIFACT_TYPE_CODE_BUNDLE,
        action_attempt_id={"action_id": world.action_id(DONE), "attempt": 1},
    )
    report.expires_in.seconds = 60
    return {
        "CreateUploadLocation": location,
        "UploadInputs": dataproxy_pb2.UploadInputsRequest(
            project_id=world.project_id(), task_spec=world.nap_spec(), inputs=world.nap_inputs(timedelta(1))
        ),
        "CreateDownloadLink": report,
        "GetActionData": dataproxy_pb2.GetActionDataRequest(action_id=world.action_id(DONE)),
        "TailLogs": dataproxy_pb2.TailLogsRequest(action_id=world.action_id(DONE), attempt=1),
    }


def _translator() -> dict[str, Message]:
    named = common_pb2.NamedLiteral(name="sure", value=world.truth(True))
    literals: dict[str, Any] = {"literals": [named], "variables": world.nap_spec().task_template.interface.inputs}
    form = translator_service_pb2.LaunchFormJsonToLiteralsRequest()
    form.json.update({"type": "object", "properties": {"x": {"type": "integer", "default": 1}}})
    values = translator_service_pb2.JsonValuesToLiteralsRequest(variables=world.nap_spec().task_template.interface.inputs)
    values.values.update({"d": "P1D"})
    return {
        "LiteralsToLaunchFormJson": translator_service_pb2.LiteralsToLaunchFormJsonRequest(**literals),
        "LaunchFormJsonToLiterals": form,
        "TaskSpecToLaunchFormJson": translator_service_pb2.TaskSpecToLaunchFormJsonRequest(task_spec=world.nap_spec()),
        "JsonValuesToLiterals": values,
    }


def _projects() -> dict[str, Message]:
    project = project_pb2.Project(id="example", name="Example", description="One", labels={"values": {"a": "b"}})
    return {
        "CreateProject": project_pb2.CreateProjectRequest(project=project),
        "UpdateProject": project_pb2.UpdateProjectRequest(project=project),
        "GetProject": project_pb2.GetProjectRequest(id=PROJECT, org="acme"),
        "ListProjects": project_pb2.ListProjectsRequest(
            limit=10, filters="eq(state, 0)", sort_by=list_pb2.Sort(key="created_at"), org="acme"
        ),
    }


def _domains() -> dict[str, Message]:
    return {
        "ListDomains": domain_pb2.ListDomainsRequest(org="acme"),
        "CreateDomain": domain_pb2.CreateDomainRequest(org="acme", id="example", friendly_name="Example"),
        "GetDomain": domain_pb2.GetDomainRequest(org="acme", id=DOMAIN),
        "UpdateDomain": domain_pb2.UpdateDomainRequest(org="acme", id="production", friendly_name="Production"),
        "DeleteDomain": domain_pb2.DeleteDomainRequest(org="acme", id=DOMAIN),
    }


def _secrets() -> dict[str, Message]:
    place = {"project": PROJECT, "domain": DOMAIN}
    key = secret_pb2.SecretIdentifier(name="example", organization="acme", **place)
    spec = secret_pb2.SecretSpec(string_value="value", type=secret_pb2.SECRET_TYPE_IMAGE_PULL_SECRET)
    return {
        "CreateSecret": secret_payload_pb2.CreateSecretRequest(id=key, secret_spec=spec),
        "UpdateSecret": secret_payload_pb2.UpdateSecretRequest(id=key, secret_spec=spec),
        "GetSecret": secret_payload_pb2.GetSecretRequest(id=key, include_system_secrets=True),
        "ListSecrets": secret_payload_pb2.ListSecretsRequest(organization="acme", limit=1, **place),
        "DeleteSecret": secret_payload_pb2.DeleteSecretRequest(id=key),
    }


def _settings() -> dict[str, Message]:
    """Of a domain where nothing runs, and none that a run elsewhere would mind."""
    key = settings_pb2.SettingsKey(org="acme", domain="staging")
    value: dict[str, Any] = {"state": settings_pb2.SETTING_STATE_VALUE}
    settings = settings_pb2.Settings(
        app={"disallow_anonymous": {**value, "bool_value": True}},
        task_resource={"max": {"memory": {**value, "quantity_value": "1Gi"}}},
        annotations={**value, "map_value": {"entries": {"team": "a"}}},
        environment_variables={"state": settings_pb2.SETTING_STATE_UNSET},
    )
    return {
        "GetSettings": settings_service_pb2.GetSettingsRequest(key=key),
        "GetSettingsForEdit": settings_service_pb2.GetSettingsForEditRequest(key=key),
        "CreateSettings": settings_service_pb2.CreateSettingsRequest(key=key, settings=settings),
        "UpdateSettings": settings_service_pb2.UpdateSettingsRequest(key=key, settings=settings, version=1),
    }


def _task_id() -> task_definition_pb2.TaskIdentifier:
    return task_definition_pb2.TaskIdentifier(org="acme", project=PROJECT, domain=DOMAIN, name="deployed", version="1")


def _tasks() -> dict[str, Message]:
    listed = list_pb2.ListRequest(limit=10, filters=[world.where("name", "deployed")])
    return {
        "DeployTask": task_service_pb2.DeployTaskRequest(task_id=_task_id(), spec=world.nap_spec("deployed")),
        "GetTaskDetails": task_service_pb2.GetTaskDetailsRequest(task_id=_task_id()),
        "ListTasks": task_service_pb2.ListTasksRequest(
            request=listed, project_id=world.project_id(), known_filters=[{"is_entrypoint": True}]
        ),
        "ListVersions": task_service_pb2.ListVersionsRequest(
            request=list_pb2.ListRequest(limit=10),
            task_name=task_definition_pb2.TaskName(project=PROJECT, domain=DOMAIN, name="deployed"),
        ),
    }


def _trigger_spec() -> trigger_definition_pb2.TriggerSpec:
    return trigger_definition_pb2.TriggerSpec(
        active=True, task_version="1", description="every day", inputs=world.nap_inputs(timedelta(0))
    )


def _daily() -> common_pb2.TriggerAutomationSpec:
    cron = common_pb2.Cron(expression="0 6 * * MON-FRI", timezone="Europe/Berlin")
    return common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=common_pb2.Schedule(cron=cron))


def _triggers() -> dict[str, Message]:
    name = world.trigger_name("example", "deployed")
    rate = common_pb2.FixedRate(value=2, unit=common_pb2.FIXED_RATE_UNIT_HOUR, start_time={"seconds": 1_700_000_000})
    hourly = common_pb2.TriggerAutomationSpec(type=common_pb2.TYPE_SCHEDULE, schedule=common_pb2.Schedule(rate=rate))
    return {
        "DeployTrigger": trigger_service_pb2.DeployTriggerRequest(name=name, spec=_trigger_spec(), automation_spec=hourly),
        "GetTriggerDetails": trigger_service_pb2.GetTriggerDetailsRequest(name=name),
        "GetTriggerRevisionDetails": trigger_service_pb2.GetTriggerRevisionDetailsRequest(
            id=identifier_pb2.TriggerIdentifier(name=name, revision=1)
        ),
        "ListTriggers": trigger_service_pb2.ListTriggersRequest(
            request=list_pb2.ListRequest(limit=10, filters=[world.where("active", "true")]), project_id=world.project_id()
        ),
        "GetTriggerRevisionHistory": trigger_service_pb2.GetTriggerRevisionHistoryRequest(
            request=list_pb2.ListRequest(limit=10, sort_by=list_pb2.Sort(key="revision")), name=name
        ),
        "UpdateTriggers": trigger_service_pb2.UpdateTriggersRequest(names=[name], active=True),
        "DeleteTriggers": trigger_service_pb2.DeleteTriggersRequest(names=[world.trigger_name("none", "deployed")]),
    }


def _cache() -> dict[str, Message]:
    output = cache_pb2.CachedOutput(output_uri="/somewhere")
    put = cache_pb2.PutCacheRequest(key="example", output=output, overwrite={"overwrite": True})
    put.overwrite.max_age.seconds = 1
    hold = cache_pb2.GetOrExtendReservationRequest(key="example", owner_id="me")
    hold.heartbeat_interval.seconds = 1
    return {
        "Put": put,
        "Get": cache_pb2.GetCacheRequest(key="example"),
        "GetOrExtendReservation": hold,
        "ReleaseReservation": cache_pb2.ReleaseReservationRequest(key="example", owner_id="me"),
        "Delete": cache_pb2.DeleteCacheRequest(key="example"),
    }


def _cache_v2() -> dict[str, Message]:
    kinds: dict[str, Any] = {
        "Put": cache_v2_pb2.PutCacheRequest,
        "Get": cache_v2_pb2.GetCacheRequest,
        "GetOrExtendReservation": cache_v2_pb2.GetOrExtendReservationRequest,
        "ReleaseReservation": cache_v2_pb2.ReleaseReservationRequest,
        "Delete": cache_v2_pb2.DeleteCacheRequest,
    }
    identifier = cache_v2_pb2.Identifier(project=PROJECT, domain=DOMAIN)
    return {rpc: kinds[rpc](base_request=request, identifier=identifier) for rpc, request in _cache().items()}
