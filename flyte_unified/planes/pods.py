"""From the settings to what pods and operators' resources are like."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flyte_unified.plugins.operators.config import OperatorConfig
from flyte_unified.plugins.pods.config import SAFE_TO_EVICT, DataSide, Json, Patience, PodConfig, SecretRef, pair, toleration
from flyte_unified.plugins.pods.images import ImageConfig
from flyte_unified.settings import Images, Operators, Pods, SettingsError

_KEYS = frozenset({"FLYTE_AWS_ACCESS_KEY_ID", "FLYTE_AWS_SECRET_ACCESS_KEY"})


def pod_config(
    pods: Pods,
    *,
    store: Mapping[str, str],
    templates: Callable[[str, str], Json | None],
    secrets: Callable[[str, str, str, str], SecretRef],
) -> PodConfig:
    """``store`` is how tasks reach it. Raises InvalidArgument for a label or taint that is none, SettingsError for keys that
    would have to stand in every pod's spec.
    """
    if not pods.store_secret and not _KEYS.isdisjoint(store):
        raise SettingsError(
            f"storage.s3_access_key is not written into pods: put {' and '.join(sorted(_KEYS))} into a Secret where pods are, "
            "and name it in pods.store_secret; or let tasks find keys of their own, by their ServiceAccount's role, and give "
            "the server its as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return PodConfig(
        store={name: value for name, value in store.items() if name not in _KEYS},
        store_secret=pods.store_secret,
        templates=templates,
        secrets=secrets,
        default_template=pods.template,
        template_namespace=pods.template_namespace,
        cpu=pods.cpu,
        memory=pods.memory,
        interruptible=pods.interruptible,
        interruptible_failures=pods.interruptible_failures,
        interruptible_selector=dict(map(pair, pods.interruptible_selector)),
        interruptible_tolerations=tuple(map(toleration, pods.interruptible_tolerations)),
        node_selector=dict(map(pair, pods.node_selector)),
        tolerations=tuple(map(toleration, pods.tolerations)),
        service_account=pods.service_account,
        image_pull_secrets=pods.image_pull_secrets,
        image_pull_policy=pods.image_pull_policy,
        labels=dict(map(pair, pods.labels)),
        annotations={SAFE_TO_EVICT: "false", **dict(map(pair, pods.annotations))},
        grace=round(pods.termination_grace) or None,
        data=DataSide(image=pods.data_image, cpu=pods.data_cpu, memory=pods.data_memory, timeout=pods.data_timeout),
    )


def patience(pods: Pods) -> Patience:
    return Patience(
        image_pull=pods.image_pull_grace,
        create_container=pods.create_container_grace,
        pending=pods.pending_timeout,
        lost=pods.node_lost_grace,
    )


def image_config(images: Images) -> ImageConfig:
    return ImageConfig(
        registry=images.registry,
        registry_secret=images.registry_secret,
        insecure=images.registry_insecure,
        buildkit=images.buildkit_image,
        uv=images.uv_image,
        cpu=images.cpu,
        memory=images.memory,
    )


def operator_config(operators: Operators) -> OperatorConfig:
    """Raises InvalidArgument for a ``spark_conf`` that is none."""
    return OperatorConfig(
        spark_conf=dict(map(pair, operators.spark_conf)),
        spark_version=operators.spark_version,
        spark_service_account=operators.spark_service_account,
        spark_history=operators.spark_history,
        ray_ttl=round(operators.ray_ttl),
        ray_dashboard=operators.ray_dashboard,
        dask_dashboard=operators.dask_dashboard,
    )
