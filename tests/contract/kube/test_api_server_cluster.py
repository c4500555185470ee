"""What a cluster does around objects: rights, quotas, limits, logs. Switched on and set by a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from flyte_unified.testing.fake_kube import ApiError, FakeKube, User
from tests.contract.kube.raw import Raw, pod

RBAC = "rbac.authorization.k8s.io/v1"


@pytest.fixture
async def own() -> AsyncIterator[FakeKube]:
    """A fake of the test's own, with the admission of service accounts."""
    async with FakeKube.running(service_accounts=True) as cluster:
        yield cluster


def resources(**requests: str) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]}


def quota(**hard: str) -> dict[str, Any]:
    hard = {key.replace("_", "."): value for key, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}


async def test_a_quota_counts_pods(api: Raw, fake: FakeKube):
    """403 in the words of a real server; a pod that ended counts no more."""
    await api("POST", "~resourcequotas", quota(pods="1"))
    assert (await api("POST", "~pods", pod("a"))).status == 201
    refused = await api("POST", "~pods", pod("b"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert refused.message == 'pods "b" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    assert (await api("GET", "~resourcequotas/q")).body["status"] == {"hard": {"pods": "1"}, "used": {"pods": "1"}}
    await api("DELETE", "~pods/a")
    assert (await api("POST", "~pods", pod("b"))).status == 201


async def test_a_quota_adds_up_requests(api: Raw, fake: FakeKube):
    """And wants every pod to name its own."""
    await api("POST", "~resourcequotas", quota(requests_cpu="1"))
    assert (await api("POST", "~pods", pod("a", **resources(cpu="600m")))).status == 201
    refused = await api("POST", "~pods", pod("b", **resources(cpu="500m")))
    assert "requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1" in refused.message
    unnamed = await api("POST", "~pods", pod("c"))
    assert unnamed.status == 403 and "failed quota: q: must specify requests.cpu for: main" in unnamed.message


async def test_a_limit_range_fills_in_and_bounds(api: Raw, fake: FakeKube):
    """Containers that ask for nothing, and those that ask for too much."""
    limit = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}}
    content = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [limit]}}
    await api("POST", "~limitranges", content)
    made = (await api("POST", "~pods", pod("a"))).body["spec"]["containers"][0]["resources"]
    assert made == {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}
    over = {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "3"}}}]}
    refused = await api("POST", "~pods", pod("b", **over))
    assert refused.status == 403 and "maximum cpu usage per Container is 2, but limit is 3" in refused.message


async def test_a_priority_class_becomes_a_number(api: Raw, fake: FakeKube):
    """One that is not there is refused."""
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    fake.apply({**kind, "metadata": {"name": "urgent"}, "value": 1000})
    assert (await api("POST", "~pods", pod("a", priorityClassName="urgent"))).body["spec"]["priority"] == 1000
    assert (
        "no PriorityClass with name none was found" in (await api("POST", "~pods", pod("b", priorityClassName="none"))).message
    )


async def test_a_pod_finds_its_accounts_token(own: FakeKube):
    """In a volume; an account that is not there is refused."""
    made = own.apply(pod("a"))
    volume = made["spec"]["volumes"][0]
    assert made["spec"]["serviceAccountName"] == "default" and "serviceAccountToken" in volume["projected"]["sources"][0]
    mount = made["spec"]["containers"][0]["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/var/run/secrets/kubernetes.io/serviceaccount")
    assert "volumes" not in own.apply(pod("b", automountServiceAccountToken=False))["spec"]
    assert [one["metadata"]["name"] for one in own.objects("serviceaccounts", namespace="kube-system")] == ["default"]
    with pytest.raises(ApiError, match='serviceaccount "none" not found'):
        own.apply(pod("c", serviceAccountName="none"))


async def test_rights_are_roles(own: FakeKube, tmp_path: Path):
    """Once they are enforced: who is nobody gets 401, who may not 403, and a service account what it is bound to."""
    own.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "default"}})
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    own.apply({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "reader", "namespace": "default"}, "rules": rules})
    subjects = [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}, {"kind": "User", "name": "ann"}]
    binding = {"roleRef": {"kind": "Role", "name": "reader"}, "subjects": subjects}
    own.apply({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "default"}, **binding})
    own.access.add("anns-token", User("ann"))
    admin = Raw(own.kubeconfig(tmp_path / "admin"), "default")
    token = (await admin("POST", "~serviceaccounts/bot/token", {"spec": {}})).body["status"]["token"]
    own.access.enforced = True
    clients = [
        Raw(own.kubeconfig(tmp_path / str(n), token=text), "default") for n, text in enumerate((token, "anns-token", "x"))
    ]
    for client, statuses in zip(clients, ((200, 403), (200, 403), (401, 401)), strict=True):
        asked = [await client("GET", "~configmaps"), await client("GET", "~secrets")]
        assert tuple(answer.status for answer in asked) == statuses
    refused = await clients[0]("GET", "~secrets")
    assert refused.message == (
        'secrets is forbidden: User "system:serviceaccount:default:bot" cannot list resource "secrets" in API group "" '
        'in the namespace "default"'
    )
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}}
    told = await clients[1]("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert told.body["status"] == {"allowed": True}
    whose = await admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert whose.body["status"]["user"]["username"] == "system:serviceaccount:default:bot"
    for client in (*clients, admin):
        await client.close()


async def test_rights_to_a_name_are_enough_to_list_and_watch_it(own: FakeKube, tmp_path: Path):
    """Where the selector asks for that one alone, and for no other."""
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["list"]}]
    own.apply({"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "reader", "namespace": "default"}, "rules": rules})
    binding = {"roleRef": {"kind": "Role", "name": "reader"}, "subjects": [{"kind": "User", "name": "ann"}]}
    own.apply({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "default"}, **binding})
    own.access.add("anns-token", User("ann"))
    own.access.enforced = True
    client = Raw(own.kubeconfig(tmp_path / "ann", token="anns-token"), "default")
    wanted = ("metadata.name=mine", "metadata.name==mine", "metadata.name!=mine", "metadata.name=other", "")
    statuses = [(await client("GET", f"~configmaps?fieldSelector={quote(fields)}")).status for fields in wanted]
    assert statuses == [200, 200, 403, 403, 403]
    await client.close()


async def test_a_disruption_budget_holds_an_eviction(api: Raw, fake: FakeKube):
    """429 while it has none to give."""
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}}
    await api("POST", "~policy/v1@poddisruptionbudgets", {**budget, "spec": {"selector": {"matchLabels": {"a": "b"}}}})
    guarded = pod("p")
    guarded["metadata"]["labels"] = {"a": "b"}
    await api("POST", "~pods", guarded)
    await api("POST", "~pods", pod("q"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction"}
    answers = [await api("POST", f"~pods/{name}/eviction", {**eviction, "metadata": {"name": name}}) for name in ("p", "q")]
    assert [answer.status for answer in answers] == [429, 201]
    assert [(await api("GET", f"~pods/{name}")).status for name in ("p", "q")] == [200, 404]


async def test_logs_come_from_the_nodes_kubelet(api: Raw, fake: FakeKube):
    """With the options of the request, as a stream; its refusal is passed on."""
    asked: list[str] = []

    async def logs(request: web.Request) -> web.StreamResponse:
        asked.append(str(request.rel_url))
        if request.match_info["container"] == "waits":
            return web.Response(status=400, text='container "waits" in pod "p" is waiting to start')
        return web.Response(text="one\ntwo\n")

    application = web.Application()
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    endpoint = {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}, "addresses": [{"type": "InternalIP", "address": host}]}
    fake.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": endpoint})
    containers = [{"name": name, "image": "i"} for name in ("main", "waits")]
    await api("POST", "~pods", pod("p", nodeName="n1", containers=containers))
    assert (await api("GET", "~pods/p/log?container=main&tailLines=5&timestamps=true")).body == "one\ntwo\n"
    assert asked == [f"/containerLogs/{api.namespace}/p/main?timestamps=true&tailLines=5"]
    waits = await api("GET", "~pods/p/log?container=waits")
    assert (waits.status, waits.message) == (400, 'container "waits" in pod "p" is waiting to start')
    assert "a container name must be specified" in (await api("GET", "~pods/p/log")).message
    assert "container other is not valid for pod p" in (await api("GET", "~pods/p/log?container=other")).message
    await runner.cleanup()


async def test_logs_can_be_set(api: Raw, fake: FakeKube):
    """For pods that nobody runs; without a text they are empty."""
    await api("POST", "~pods", pod("p"))
    assert (await api("GET", "~pods/p/log")).body == ""
    fake.set_log("p", "one\ntwo\n", container="main", namespace=api.namespace)
    assert (await api("GET", "~pods/p/log?tailLines=1")).body == "two\n"
