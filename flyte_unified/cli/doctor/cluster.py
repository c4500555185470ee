"""The cluster in which tasks are pods: whether it answers, knows TaskActions, and lets us do what a leader does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from flyte_unified.cli.doctor.finding import Check, Finding, error, ok
from flyte_unified.kube.client import Kube
from flyte_unified.kube.errors import Forbidden, Missing
from flyte_unified.kube.kinds import ACCESS_REVIEWS, EVENTS, LEASES, POD_TEMPLATES, PODS, TASK_ACTIONS, Kind
from flyte_unified.settings import Settings

_WORK = ("get", "list", "watch", "create", "patch", "delete")
_MANIFESTS = "kubectl apply -k config/kubernetes/base -n NAMESPACE"


async def _cluster(settings: Settings) -> AsyncIterator[Finding]:
    cluster = settings.kubernetes
    kube = Kube(kubeconfig=Path(cluster.kubeconfig) if cluster.kubeconfig else None, context=cluster.context)
    await kube.start()
    try:
        async for finding in _kinds(kube, cluster.scope):
            yield finding
        lease = (cluster.lease_namespace or cluster.scope or "default", cluster.lease)
        rights = [(kind, verb, cluster.scope, "") for kind in (PODS, TASK_ACTIONS) for verb in _WORK]
        rights += [(kind, verb, cluster.scope, "") for kind in (EVENTS, POD_TEMPLATES) for verb in ("list", "watch")]
        rights += [(LEASES, "create", lease[0], ""), *((LEASES, verb, *lease) for verb in ("get", "update"))]
        missing = [f"{right[1]} {right[0].plural}" for right in rights if not await _may(kube, *right)]
    finally:
        await kube.stop()
    mend = _MANIFESTS.replace("NAMESPACE", cluster.scope or "flyte")
    if missing:
        yield error("rights", f"this account may not: {', '.join(missing)}", mend)
    else:
        yield ok("rights", f"all that a leader needs in {cluster.scope or 'every namespace'}")


async def _kinds(kube: Kube, namespace: str) -> AsyncIterator[Finding]:
    try:
        async with aclosing(kube.pages(TASK_ACTIONS, namespace=namespace, limit=1)) as pages:
            await anext(pages)
    except Missing:
        yield error(
            "TaskAction", "the cluster does not know this kind", "kubectl apply -f config/kubernetes/base/taskactions.yaml"
        )
    except Forbidden:
        yield ok("cluster", "answers")
    else:
        yield ok("cluster", "answers, and knows TaskActions")


async def _may(kube: Kube, kind: Kind, verb: str, namespace: str, name: str) -> bool:
    asked = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": namespace, "name": name}
    answer = await kube.create(ACCESS_REVIEWS, {"metadata": {}, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))


CHECKS = [Check("cluster", _cluster, "see kubernetes.kubeconfig and kubernetes.context; `kubectl cluster-info` must answer")]
