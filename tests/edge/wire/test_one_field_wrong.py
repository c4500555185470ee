"""Requests that are right but for one field: each is answered, or refused in words, and never an accident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from flyte_unified.rpc.registry import Registry
from tests.edge.wire import examples
from tests.edge.wire.examples import Example
from tests.edge.wire.raw import Answer, Raw

_JUDGED = {
    "invalid_argument",
    "not_found",
    "already_exists",
    "failed_precondition",
    "permission_denied",
    "unimplemented",
    "aborted",
}
_FINE = {"ok", "open"}
_METHODS = {method.procedure: method for method in Registry().methods()}
_SERVED = [
    "actions.ActionsService",
    "app.AppLogsService",
    "app.AppService",
    "auth.AuthMetadataService",
    "auth.IdentityService",
    "cacheservice.CacheService",
    "cacheservice.v2.CacheService",
    "cluster.ClusterService",
    "dataproxy.DataProxyService",
    "imagebuilder.ImageService",
    "org.DomainService",
    "project.ProjectService",
    "secret.SecretService",
    "settings.SettingsService",
    "task.TaskService",
    "trigger.TriggerService",
    "workflow.EventsProxyService",
    "workflow.InternalRunService",
    "workflow.QueueService",
    "workflow.RunLogsService",
    "workflow.RunService",
    "workflow.StateService",
    "workflow.TrackedRunService",
    "workflow.TranslatorService",
]


async def call(raw: Raw, example: Example) -> Answer:
    kind = _METHODS[example.procedure].kind
    streams = kind.client_streams or kind.server_streams
    return await raw.call(example.procedure, example.message, streams=streams, patience=0.02)


@pytest.mark.parametrize("service", _SERVED)
async def test_one_field_at_a_time(raw: Raw, valid: Mapping[str, list[Example]], service: str) -> None:
    """Every field of every request of a service, set to what nobody means."""
    wrong, codes = [], Counter[str]()
    for example in valid[service]:
        for mutant in examples.mutants(example):
            answer = await call(raw, mutant)
            codes[answer.code] += 1
            if answer.code not in _JUDGED | _FINE or (answer.code in _JUDGED and not answer.message):
                wrong.append(f"{mutant.procedure} with {mutant.path}: {answer.code} {answer.message[:200]}")
    assert not wrong, "\n".join(wrong)
