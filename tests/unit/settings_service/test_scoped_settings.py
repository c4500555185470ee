"""Settings of scopes: what holds where, who may write, and what a new run has of it."""

from __future__ import annotations

from typing import Any

import pytest
from flyteidl2.app import app_definition_pb2
from flyteidl2.core import tasks_pb2
from flyteidl2.settings import settings_definition_pb2 as idl
from flyteidl2.settings import settings_service_pb2 as service
from flyteidl2.task import run_pb2

from flyte_unified.core.context import CallContext
from flyte_unified.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from flyte_unified.core.queues import Queues
from flyte_unified.db.api import Database, Notice
from flyte_unified.settings_service.handlers import SettingsHandlers
from flyte_unified.settings_service.service import ScopedSettings
from tests.unit.manual_clock import ManualClock

CTX = CallContext(procedure="/test")
VALUE: dict[str, Any] = {"state": idl.SETTING_STATE_VALUE}
UNSET: dict[str, Any] = {"state": idl.SETTING_STATE_UNSET}
ORG, DOMAIN, OWN = idl.SettingsKey(org="acme"), idl.SettingsKey(domain="dev"), idl.SettingsKey(domain="dev", project="p")


async def _require_domain(domain: str, field: str) -> None:
    if domain not in ("dev", "prod"):
        raise NotFound(f"{field}: there is no domain {domain!r}")


async def _require(project: str, domain: str) -> None:
    if project != "p":
        raise NotFound(f"there is no project {project!r}")


@pytest.fixture
def settings(database: Database, clock: ManualClock) -> ScopedSettings:
    return _settings(database, clock)


def _settings(database: Database, clock: ManualClock) -> ScopedSettings:
    queues = Queues(("org", "domain", "own", "new", "queue", "mine"))
    return ScopedSettings(
        database=database, clock=clock, require_domain=_require_domain, require_project=_require, queues=queues
    )


@pytest.fixture
def handlers(settings: ScopedSettings) -> SettingsHandlers:
    return SettingsHandlers(settings=settings)


def text(value: str) -> dict[str, Any]:
    return {**VALUE, "string_value": value}


def entries(**values: str) -> dict[str, Any]:
    return {**VALUE, "map_value": {"entries": values}}


def _amount(bound: str, name: str, value: str) -> dict[str, Any]:
    return {"task_resource": {bound: {name: {**VALUE, "quantity_value": value}}}}


async def _create(handlers: SettingsHandlers, key: idl.SettingsKey, **fields: Any) -> service.SettingsRecord:
    message = service.CreateSettingsRequest(key=key, settings=idl.Settings(**fields))
    return (await handlers.create_settings(message, CTX)).settingsRecord


async def _update(handlers: SettingsHandlers, key: idl.SettingsKey, version: int, **fields: Any) -> service.SettingsRecord:
    message = service.UpdateSettingsRequest(key=key, settings=idl.Settings(**fields), version=version)
    return (await handlers.update_settings(message, CTX)).settingsRecord


async def _get(handlers: SettingsHandlers, key: idl.SettingsKey) -> service.SettingsRecord:
    return (await handlers.get_settings(service.GetSettingsRequest(key=key), CTX)).settingsRecord


async def test_the_most_specific_value_holds(handlers: SettingsHandlers) -> None:
    """With the level that it is from; what no level sets is not there."""
    await _create(handlers, ORG, run={"default_queue": text("org")}, security={"service_account": text("org")})
    await _create(handlers, DOMAIN, run={"default_queue": text("domain")})
    found = await _get(handlers, OWN)
    assert (found.settings.run.default_queue.string_value, found.settings.run.default_queue.scope_level) == (
        "domain",
        idl.SCOPE_LEVEL_DOMAIN,
    )
    assert found.settings.security.service_account.scope_level == idl.SCOPE_LEVEL_ORG
    assert not found.settings.HasField("storage")
    assert (found.version, found.key) == (0, OWN)
    assert (await _get(handlers, ORG)).settings.run.default_queue.string_value == "org"


async def test_unset_ends_inheritance(handlers: SettingsHandlers) -> None:
    """Without a value; a narrower scope may have one again."""
    await _create(handlers, ORG, run={"default_queue": text("org")})
    await _create(handlers, DOMAIN, run={"default_queue": UNSET})
    found = (await _get(handlers, DOMAIN)).settings.run.default_queue
    assert (found.state, found.string_value, found.scope_level) == (idl.SETTING_STATE_UNSET, "", idl.SCOPE_LEVEL_DOMAIN)
    await _create(handlers, OWN, run={"default_queue": text("own")})
    assert (await _get(handlers, OWN)).settings.run.default_queue.string_value == "own"


async def test_maps_add_up(handlers: SettingsHandlers) -> None:
    """Narrower entries win; a map that a scope unsets begins anew below it."""
    await _create(handlers, ORG, labels=entries(a="org", b="org"), annotations=entries(a="org"))
    await _create(handlers, DOMAIN, labels=entries(b="domain", c="domain"), annotations=UNSET)
    await _create(handlers, OWN, annotations=entries(b="own"))
    found = (await _get(handlers, OWN)).settings
    assert dict(found.labels.map_value.entries) == {"a": "org", "b": "domain", "c": "domain"}
    assert dict(found.annotations.map_value.entries) == {"b": "own"}


async def test_an_editor_sees_each_level_alone(handlers: SettingsHandlers) -> None:
    """The widest first, with its version; 0 where nothing is set yet."""
    await _create(handlers, DOMAIN, labels=entries(a="domain"))
    message = service.GetSettingsForEditRequest(key=OWN)
    found = await handlers.get_settings_for_edit(message, CTX)
    assert found.requestedKey == OWN
    assert [(level.key.domain, level.key.project, level.version) for level in found.levels] == [
        ("", "", 0),
        ("dev", "", 1),
        ("dev", "p", 0),
    ]
    assert [dict(level.settings.labels.map_value.entries) for level in found.levels] == [{}, {"a": "domain"}, {}]


async def test_who_writes_must_have_read(handlers: SettingsHandlers) -> None:
    """A version grows with each write; one that is over is refused, and a repeated call is no other."""
    with pytest.raises(NotFound, match="create them"):
        await _update(handlers, OWN, 1)
    with pytest.raises(InvalidArgument, match="version must be set"):
        await _update(handlers, OWN, 0)
    assert (await _create(handlers, OWN, labels=entries(a="1"))).version == 1
    assert (await _create(handlers, OWN, labels=entries(a="1"))).version == 1
    with pytest.raises(AlreadyExists, match="version 1"):
        await _create(handlers, OWN, labels=entries(a="2"))
    assert (await _update(handlers, OWN, 1, labels=entries(a="2"))).version == 2
    assert (await _update(handlers, OWN, 1, labels=entries(a="2"))).version == 2
    with pytest.raises(FailedPrecondition, match="1 was read, and 2 is the present one"):
        await _update(handlers, OWN, 1, labels=entries(a="3"))
    assert not (await _update(handlers, OWN, 2)).settings.HasField("labels")


@pytest.mark.parametrize(
    ("key", "fields", "message"),
    [
        (idl.SettingsKey(project="p"), {}, "key.domain is empty"),
        (ORG, {"task_resource": {"min": {"cpu": {**VALUE, "quantity_value": "many"}}}}, r"settings.task_resource.min.cpu"),
        (ORG, {"run": {"max_action_concurrency": {**VALUE, "int_value": -1}}}, "max_action_concurrency is -1"),
        (ORG, {"run": {"max_action_concurrency": {**VALUE, "int_value": 1 << 32}}}, "at most 4294967295"),
        (ORG, {"run": {"default_queue": text("gup")}}, "settings.run.default_queue: there is no queue 'gup'"),
        (ORG, {"labels": entries(**{"no label!": "x"})}, "settings.labels"),
        (ORG, {"annotations": entries(**{"no key!": "x"})}, "settings.annotations"),
        (ORG, {"environment_variables": entries(**{"A=B": "x"})}, "settings.environment_variables"),
        (ORG, {"security": {"service_account": text("Not A Name")}}, "settings.security.service_account"),
        (ORG, {"pod_template_name": text("")}, "settings.pod_template_name"),
        (ORG, {"labels": {"state": 7}}, "settings.labels.state"),
        (ORG, _amount("max", "memory", "1GiB"), r"settings.task_resource.max.memory: '1GiB' is no quantity"),
        (ORG, _amount("min", "gpu", "500m"), r"settings.task_resource.min.gpu is 0.5; a whole number"),
        (ORG, _amount("max", "storage", "0"), r"settings.task_resource.max.storage is 0"),
        (ORG, {"app": {"app_dns_strategy": text("dataplane_specific")}}, "settings.app.app_dns_strategy: 'dataplane_specific'"),
    ],
)
async def test_what_is_wrong_is_named(
    handlers: SettingsHandlers, key: idl.SettingsKey, fields: dict[str, Any], message: str
) -> None:
    """When it is set, not when a run meets it."""
    with pytest.raises(InvalidArgument, match=message):
        await _create(handlers, key, **fields)


async def test_a_scope_must_exist(handlers: SettingsHandlers) -> None:
    """To be read, too: a typing error would look like settings that nobody made."""
    for key in (idl.SettingsKey(domain="nowhere"), idl.SettingsKey(domain="dev", project="q")):
        with pytest.raises(NotFound):
            await _get(handlers, key)


async def _completed(settings: ScopedSettings, **said: Any) -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec(**said)
    await settings.complete(spec, "p", "dev")
    return spec


EVERYTHING: dict[str, Any] = {
    "run": {
        "default_queue": text("queue"),
        "max_action_concurrency": {**VALUE, "int_value": 5},
        "run_base_dir": text("s3://b/runs"),
    },
    "storage": {"raw_data_path": text("s3://b/raw")},
    "security": {"service_account": text("account")},
    "labels": entries(a="set", b="set"),
    "annotations": entries(a="set"),
    "environment_variables": entries(A="set", B="set"),
    "pod_template_name": text("template"),
    "task_resource": {
        "min": {"cpu": {**VALUE, "quantity_value": "2"}},
        "max": {"memory": {**VALUE, "quantity_value": "4Gi"}, "gpu": {**VALUE, "quantity_value": "0"}},
        "mirror_limits_request": {**VALUE, "bool_value": True},
    },
    "app": {"app_dns_strategy": text("shared")},
}


async def test_a_run_has_what_it_does_not_say(settings: ScopedSettings, handlers: SettingsHandlers) -> None:
    """Everything that a run's spec has a place for."""
    await _create(handlers, DOMAIN, **EVERYTHING)
    spec = await _completed(settings)
    assert (spec.queue, spec.max_action_concurrency, spec.run_base_dir) == ("queue", 5, "s3://b/runs")
    assert spec.raw_data_storage.raw_data_prefix == "s3://b/raw"
    assert spec.security_context.run_as.k8s_service_account == "account"
    assert dict(spec.labels.values) == {"a": "set", "b": "set"}
    assert dict(spec.annotations.values) == {"a": "set", "flyte.org/mirror-limits-request": "true"}
    assert [(entry.key, entry.value) for entry in spec.envs.values] == [("A", "set"), ("B", "set")]
    resources = spec.default_settings.task_resource_defaults
    assert spec.default_settings.pod_template_name == "template"
    assert [(entry.name, entry.value) for entry in resources.requests] == [(tasks_pb2.Resources.CPU, "2")]
    assert {entry.name: entry.value for entry in resources.max} == {
        tasks_pb2.Resources.GPU: "0",
        tasks_pb2.Resources.MEMORY: "4Gi",
    }


async def test_what_a_run_says_wins(settings: ScopedSettings, handlers: SettingsHandlers) -> None:
    """Field by field, entry by entry."""
    await _create(handlers, DOMAIN, **EVERYTHING)
    said: dict[str, Any] = {
        "queue": "mine",
        "max_action_concurrency": 1,
        "run_base_dir": "s3://mine",
        "raw_data_storage": {"raw_data_prefix": "s3://mine"},
        "security_context": {"run_as": {"k8s_service_account": "mine"}},
        "labels": {"values": {"a": "mine"}},
        "envs": {"values": [{"key": "A", "value": ""}]},
    }
    spec = await _completed(settings, **said)
    assert (spec.queue, spec.max_action_concurrency, spec.run_base_dir) == ("mine", 1, "s3://mine")
    assert spec.raw_data_storage.raw_data_prefix == "s3://mine"
    assert spec.security_context.run_as.k8s_service_account == "mine"
    assert dict(spec.labels.values) == {"a": "mine", "b": "set"}
    assert [(entry.key, entry.value) for entry in spec.envs.values] == [("A", ""), ("B", "set")]


async def test_without_settings_a_run_is_as_it_was(settings: ScopedSettings) -> None:
    """Not even an empty message is added."""
    assert await _completed(settings) == run_pb2.RunSpec()


async def test_no_run_brings_defaults_of_its_own(settings: ScopedSettings, handlers: SettingsHandlers) -> None:
    """A rerun has the bounds of now, and nobody lifts them for a run."""
    said = {"default_settings": {"task_resource_defaults": {"max": [{"name": tasks_pb2.Resources.CPU, "value": "64"}]}}}
    assert await _completed(settings, **said) == run_pb2.RunSpec()
    await _create(handlers, DOMAIN, **_amount("max", "cpu", "2"))
    (bound,) = (await _completed(settings, **said)).default_settings.task_resource_defaults.max
    assert bound.value == "2"


async def test_limits_mirror_requests_down_to_who_says_no(settings: ScopedSettings, handlers: SettingsHandlers) -> None:
    """A narrower scope, or the run."""
    mirror = "flyte.org/mirror-limits-request"
    await _create(handlers, ORG, task_resource={"mirror_limits_request": {**VALUE, "bool_value": True}})
    assert (await _completed(settings)).annotations.values[mirror] == "true"
    assert (await _completed(settings, annotations={"values": {mirror: "false"}})).annotations.values[mirror] == "false"
    await _create(handlers, OWN, task_resource={"mirror_limits_request": {**VALUE, "bool_value": False}})
    assert await _completed(settings) == run_pb2.RunSpec()


async def test_apps_that_anybody_may_ask(settings: ScopedSettings, handlers: SettingsHandlers) -> None:
    """They are deployed where no scope says otherwise, and refused with the name of the one that does."""
    anonymous, closed = (app_definition_pb2.Spec(security_context={"allow_anonymous": each}) for each in (True, False))
    forbidden = {"disallow_anonymous": {**VALUE, "bool_value": True}}
    await settings.admit(anonymous, "p", "dev")
    await _create(handlers, ORG, app=forbidden)
    with pytest.raises(
        FailedPrecondition, match=r"security_context\.allow_anonymous: .* of every project .* requires_auth=True"
    ):
        await settings.admit(anonymous, "p", "dev")
    await _create(handlers, DOMAIN, app=forbidden)
    with pytest.raises(FailedPrecondition, match="settings of domain 'dev' forbids"):
        await settings.admit(anonymous, "p", "dev")
    await settings.admit(closed, "p", "dev")
    await _create(handlers, OWN, app={"disallow_anonymous": UNSET})
    await settings.admit(anonymous, "p", "dev")


async def test_a_change_is_for_the_next_run(
    settings: ScopedSettings, handlers: SettingsHandlers, database: Database, clock: ManualClock
) -> None:
    """On this server at once, on another as soon as it is told."""
    other = _settings(database, clock)
    assert (await _completed(settings)).queue == (await _completed(other)).queue == ""
    await _create(handlers, ORG, run={"default_queue": text("new")})
    assert (await _completed(settings)).queue == "new"
    other.noticed(Notice("project", "p"))
    assert (await _completed(other)).queue == ""
    other.noticed(Notice("settings", "/"))
    assert (await _completed(other)).queue == "new"
