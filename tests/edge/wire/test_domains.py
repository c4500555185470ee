"""A domain that is made while the server runs, in every room that asks for one; no command of the SDK makes one."""

from __future__ import annotations

from datetime import timedelta

from flyteidl2.org import domain_service_pb2 as idl
from flyteidl2.project import project_service_pb2
from flyteidl2.secret import definition_pb2, payload_pb2
from flyteidl2.settings import settings_definition_pb2, settings_service_pb2
from flyteidl2.workflow import run_service_pb2
from google.protobuf.message import Message

from tests.edge.wire.world import PROJECT, RUNS, World, create_run, new_name

DOMAINS = "/flyteidl2.org.DomainService/"
_SECRETS = "/flyteidl2.secret.SecretService/"
_SETTINGS = "/flyteidl2.settings.SettingsService/"


async def test_a_domain_is_known_everywhere(world: World) -> None:
    """From its creation to its end, which whatever is in it forbids."""
    name = new_name("qa")
    delete = idl.DeleteDomainRequest(org="acme", id=name)
    secret = definition_pb2.SecretIdentifier(name="key", domain=name)
    spec = definition_pb2.SecretSpec(string_value="value")
    key = settings_definition_pb2.SettingsKey(domain=name, project=PROJECT)
    steps: list[tuple[str, Message, str]] = [
        (RUNS + "CreateRun", _run(name), "not_found"),
        (_SECRETS + "CreateSecret", payload_pb2.CreateSecretRequest(id=secret, secret_spec=spec), "not_found"),
        (DOMAINS + "CreateDomain", idl.CreateDomainRequest(org="acme", id=name, friendly_name="Quality"), "ok"),
        (_SECRETS + "CreateSecret", payload_pb2.CreateSecretRequest(id=secret, secret_spec=spec), "ok"),
        (_SETTINGS + "GetSettings", settings_service_pb2.GetSettingsRequest(key=key), "ok"),
        (DOMAINS + "DeleteDomain", delete, "failed_precondition"),
        (_SECRETS + "DeleteSecret", payload_pb2.DeleteSecretRequest(id=secret), "ok"),
        (RUNS + "CreateRun", _run(name), "ok"),
        (DOMAINS + "DeleteDomain", delete, "failed_precondition"),
    ]
    for procedure, message, code in steps:
        answer = await world.raw.call(procedure, message)
        assert answer.code == code, (procedure, answer)
    assert f"there are runs of project {PROJECT!r} in it" in answer.message
    asked = project_service_pb2.GetProjectRequest(id=PROJECT)
    answered = project_service_pb2.GetProjectResponse
    project = (await world.send("/flyteidl2.project.ProjectService/GetProject", asked, answered)).project
    assert {domain.id: domain.name for domain in project.domains}[name] == "Quality"


def _run(domain: str) -> run_service_pb2.CreateRunRequest:
    message = create_run(new_name("d"), timedelta(0))
    message.run_id.domain = domain
    return message
