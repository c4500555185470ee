"""Secrets in pods: references, never values."""

from __future__ import annotations

from collections.abc import Mapping

import flyte
import pytest
from flyteidl2.core import security_pb2
from flyteidl2.task import run_pb2

from flyte_unified.plugins.pods.config import SecretRef, secret_name
from tests.unit.plugins.contexts import KEY, context_of, env_of, pod_of, refused, spec, spec_of, task_in

SECRETS = flyte.TaskEnvironment(
    "secretive",
    image="team/app:1",
    secrets=[
        "api-key",
        flyte.Secret("password", group="database"),
        flyte.Secret("pem", group="tls", mount="/etc/flyte/secrets"),
        flyte.Secret("pem", group="other", mount="/etc/flyte/secrets"),
        flyte.Secret("license", mount="/etc/flyte/secrets"),
    ],
)


def test_secrets_are_references():
    """Variables and files where the SDK's programs look; where a value is, the operator's function says."""
    found = pod_of(context_of(spec_of(task_in(SECRETS)))).manifest["spec"]
    (container,) = found["containers"]
    env = env_of(container)
    ours = secret_name(KEY.project, KEY.domain, "api-key")
    assert env["API_KEY"] == {"secretKeyRef": {"name": ours, "key": "value"}}
    assert env["DATABASE_PASSWORD"] == {"secretKeyRef": {"name": "database", "key": "password"}}
    (volume,) = found["volumes"]
    paths = [(s["secret"]["name"], [i["path"] for i in s["secret"]["items"]]) for s in volume["projected"]["sources"]]
    license_name = secret_name(KEY.project, KEY.domain, "license")
    assert paths == [("tls", ["pem", "tls/pem"]), ("other", ["other/pem"]), (license_name, ["license"])]
    assert container["volumeMounts"] == [{"name": "flyte-secrets", "mountPath": "/etc/flyte/secrets", "readOnly": True}]
    chosen = pod_of(
        context_of(spec_of(task_in(SECRETS))), secrets=lambda *wanted: SecretRef("one", "-".join(filter(None, wanted)))
    ).manifest["spec"]["containers"][0]
    assert env_of(chosen)["API_KEY"] == {"secretKeyRef": {"name": "one", "key": "flytesnacks-development-api-key"}}


def test_secrets_of_flyte_1_and_of_a_run():
    """Without a variable's name both generations of SDKs find it; a file may have a variable for its path."""
    secret = security_pb2.Secret
    run = run_pb2.RunSpec(
        security_context=security_pb2.SecurityContext(
            secrets=[
                secret(group="db", key="pass-word", mount_requirement=secret.ENV_VAR),
                secret(group="db", key="ca", mount_requirement=secret.FILE, env_var="CA_PATH"),
            ]
        )
    )
    found = pod_of(context_of(spec(), run_spec=run)).manifest["spec"]
    env = env_of(found["containers"][0])
    assert env["_UNION_PASS_WORD"] == env["_FSEC_DB_PASS-WORD"] == {"secretKeyRef": {"name": "db", "key": "pass-word"}}
    assert (env["FLYTE_SECRETS_ENV_PREFIX"], env["FLYTE_SECRETS_DEFAULT_DIR"]) == ("_FSEC_", "/etc/flyte/secrets")
    assert env["CA_PATH"] == "/etc/flyte/secrets/ca"


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ({"group": "Not A Name", "key": "k"}, "Not A Name/k"),
        ({"group": "g", "key": "no/slash"}, "g/no/slash"),
        ({"group": "g"}, "has no key"),
        ({"key": "..", "mountRequirement": "FILE"}, "'..' is no path for a file"),
    ],
)
def test_secrets_that_can_not_be(secret: Mapping[str, str], told: str):
    """Told when the task starts, by their names, not found out by a pod that never begins."""
    message = refused({"securityContext": {"secrets": [secret]}})
    assert message.startswith("security_context.secrets")
    assert told in message
