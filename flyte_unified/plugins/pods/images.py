"""The system's task ``build-image`` in a cluster: a pod in which rootless BuildKit builds from a Dockerfile, and pushes.

A container of ours before it makes the Dockerfile of the image's layers and lays out what the client sent along; one beside it
stores the address, as for any image that knows nothing of Flyte. BuildKit is an ordinary user here, who takes namespaces of his
own, so seccomp and AppArmor are off for him; in an annotation too, for Kubernetes 1.29.
Source: https://github.com/moby/buildkit/blob/master/examples/kubernetes/job.rootless.yaml
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flyteidl2.task import task_definition_pb2

from flyte_unified.core.images import OUTPUT
from flyte_unified.plugins.api import Refusal, TaskContext, Work
from flyte_unified.plugins.images import forced
from flyte_unified.plugins.pods.build import PRIMARY, Pods
from flyte_unified.plugins.pods.config import DataSide
from flyte_unified.plugins.pods.reading import OURS

_BUILD, _BUILD_PATH = "flyte-build", "/var/flyte/build"
_LAYERS_PATH = "/home/user/.local/share/buildkit"
_LOGIN, _LOGIN_PATH = "flyte-registry", "/home/user/.docker"
_APPARMOR = f"container.apparmor.security.beta.kubernetes.io/{PRIMARY}"
_SCRIPT = f"""\
set -eu
cd {_BUILD_PATH}
if [ "$PLAIN_REGISTRY" ]; then
  cat ~/.config/buildkit/buildkitd.toml > buildkitd.toml 2> /dev/null || true
  printf '\\n[registry."%s"]\\nhttp = true\\n' "$PLAIN_REGISTRY" >> buildkitd.toml
  export BUILDKITD_FLAGS="$BUILDKITD_FLAGS --config={_BUILD_PATH}/buildkitd.toml"
fi
{{
  buildctl-daemonless.sh build --progress plain --frontend dockerfile.v0 --local context=context --local dockerfile=. \\
    $(cat secrets) $NO_CACHE --output "type=image,name=$(cat image),push=true" 2>&1 || touch failed
}} | tee log
if [ -e failed ]; then
  sed -n '/^------$/,$p' log > /dev/termination-log
  exit 1
fi
cp image "$OUTPUTS/{OUTPUT}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Where images go, and who builds them."""

    registry: str = ""
    """Empty: nothing is built."""
    registry_secret: str = ""
    """A Secret object (kubernetes.io/dockerconfigjson) in the pods' namespace."""
    insecure: bool = False
    """The registry speaks plain HTTP."""
    buildkit: str = ""
    uv: str = ""
    """Images of rootless BuildKit, and of uv."""
    cpu: str = "1"
    memory: str = "2Gi"


class ImagePods:
    """``data`` is what ``pods`` moves data with."""

    def __init__(self, pods: Pods, config: ImageConfig, data: DataSide) -> None:
        self._pods = pods
        self._config = config
        self._data = data

    def describe(self, context: TaskContext) -> Work:
        """The attempt's pod, or what is to be set before there can be one."""
        for name, value in (("images.registry", self._config.registry), ("pods.data_image", self._data.image)):
            if not value:
                return Refusal(
                    "ImagesNotConfigured",
                    f"{name} is not set: images are built from layers by BuildKit, which takes images.registry, where they are "
                    "pushed and pulled from, and pods.data_image, an image with flyte-unified",
                )
        spec = task_definition_pb2.TaskSpec()
        spec.CopyFrom(context.spec)
        pod = spec.task_template.k8s_pod
        pod.primary_container_name = PRIMARY
        pod.pod_spec.update(self._pod(context))
        pod.metadata.annotations[_APPARMOR] = "unconfined"
        return self._pods.describe(replace(context, spec=spec))

    def _pod(self, context: TaskContext) -> dict[str, Any]:
        volumes: list[dict[str, Any]] = [{"name": _BUILD, "emptyDir": {}}, {"name": "flyte-layers", "emptyDir": {}}]
        if self._config.registry_secret:
            items = [{"key": ".dockerconfigjson", "path": "config.json"}]
            volumes.append({"name": _LOGIN, "secret": {"secretName": self._config.registry_secret, "items": items}})
        return {
            "initContainers": [self._preparing()],
            "containers": [self._building(again=forced(context.run_spec))],
            "volumes": volumes,
        }

    def _preparing(self) -> dict[str, Any]:
        arguments = [f"--to={_BUILD_PATH}", f"--registry={self._config.registry}", f"--uv={self._config.uv}"]
        return {
            "name": f"{OURS}dockerfile",
            "image": self._data.image,
            "command": [*self._data.command, "dockerfile"],
            "args": ["--from={{.input}}", "--errors={{.outputPrefix}}", *arguments],
            "resources": {"requests": {"cpu": self._data.cpu, "memory": self._data.memory}},
            "volumeMounts": [{"name": _BUILD, "mountPath": _BUILD_PATH}],
        }

    def _building(self, *, again: bool) -> dict[str, Any]:
        environment = {
            "BUILDKITD_FLAGS": "--oci-worker-no-process-sandbox",
            "DOCKER_CONFIG": _LOGIN_PATH,
            "NO_CACHE": "--no-cache" if again else "",
            "OUTPUTS": self._data.output_path,
            "PLAIN_REGISTRY": self._config.registry.partition("/")[0] if self._config.insecure else "",
        }
        mounts = [{"name": _BUILD, "mountPath": _BUILD_PATH}, {"name": "flyte-layers", "mountPath": _LAYERS_PATH}]
        if self._config.registry_secret:
            mounts.append({"name": _LOGIN, "mountPath": _LOGIN_PATH})
        amounts = {"cpu": self._config.cpu, "memory": self._config.memory}
        unconfined = {"type": "Unconfined"}
        return {
            "name": PRIMARY,
            "image": self._config.buildkit,
            "command": ["sh", "-c", _SCRIPT],
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "resources": {"requests": amounts, "limits": amounts},
            "securityContext": {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "seccompProfile": unconfined,
                "appArmorProfile": unconfined,
            },
            "volumeMounts": mounts,
        }
