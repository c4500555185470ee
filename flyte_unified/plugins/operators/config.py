"""What the operator of the cluster may say about other operators' resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """Links are templates with ``{{.namespace}}``, ``{{.name}}`` (the resource's) and what is named beside; empty: no link.

    Times are in seconds.
    """

    spark_conf: Mapping[str, str] = field(default_factory=dict)
    """Of every Spark task, below what it says itself."""
    spark_version: str = "3.5.0"
    """What the Spark operator is told of tasks' images, which don't tell; it takes pod templates from 3.0.0 on."""
    spark_service_account: str = "spark"
    """Of pods that have none of their own: a driver creates its executors."""
    spark_history: str = ""
    """The history of an application that has ended. Also ``{{.sparkApplicationID}}``."""
    ray_ttl: int = 0
    """How long a cluster stays after its job, for tasks that don't ask to have it shut down."""
    ray_dashboard: str = ""
    """Also ``{{.rayClusterName}}`` and ``{{.rayJobID}}``. Empty: the address within the cluster, as KubeRay tells it."""
    dask_dashboard: str = ""
    """``{{.name}}-scheduler`` is the Service, port 8787."""
