"""What a container finds on a node of processes: its environment, its volumes, its image, its handlers."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import pytest

from flyte_unified.kube.kinds import CONFIG_MAPS, SECRETS
from flyte_unified.testing.kubelet.environment import expanded
from tests.contract.kube.nodes import World, phase, ready, reason, running, sh, state, status, unique, world

__all__ = ["world"]


async def secret(world: World, name: str = "keys", **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    await world.kube.create(
        SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}, namespace=world.namespace
    )


async def config(world: World, name: str = "options", **data: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await world.kube.create(CONFIG_MAPS, body, namespace=world.namespace)


def field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


def mounted(volume: str, path: str, **more: Any) -> dict[str, Any]:
    return {"volumeMounts": [{"name": volume, "mountPath": path, **more}]}


# The environment


async def test_variables_come_from_everywhere(world: World):
    """Values, fields, resources, secrets and config maps; later ones may name earlier ones; envFrom comes first."""
    await secret(world, token="s3cret")
    await config(world, level="9", COLOR="red", SHAPE="round")
    env = [
        {"name": "PLAIN", "value": "a b"},
        {"name": "JOINED", "value": "$(PLAIN)-$(COLOR)-$(NONE)-$$(PLAIN)"},
        {"name": "POD", "valueFrom": field("metadata.name")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['app']")},
        {"name": "NODE", "valueFrom": field("spec.nodeName")},
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "options", "key": "level"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
        {"name": "SHAPE", "value": "square"},
    ]
    source = [{"configMapRef": {"name": "options"}}, {"prefix": "KEY_", "secretRef": {"name": "keys"}}]
    names = [v["name"] for v in env] + ["COLOR", "KEY_token", "HOSTNAME"]
    script = "; ".join(f'echo "{name}=${{{name}-unset}}"' for name in names)
    resources = {"limits": {"memory": "300Mi"}, "requests": {"cpu": "250m"}}
    container = sh(script, env=env, envFrom=source, resources=resources)
    await world.run(container, metadata={"labels": {"app": "web"}})
    assert dict(line.split("=", 1) for line in await world.logs()) == {
        "PLAIN": "a b",
        "JOINED": "a b-red-$(NONE)-$(PLAIN)",
        "POD": "pod",
        "LABEL": "web",
        "NODE": world.node,
        "IP": "127.0.0.1",
        "MEMORY": "300",
        "CPU": "1",
        "TOKEN": "s3cret",
        "LEVEL": "9",
        "ABSENT": "unset",
        "SHAPE": "square",
        "COLOR": "red",
        "KEY_token": "s3cret",
        "HOSTNAME": "pod",
    }


async def test_nothing_of_the_node_s_own_environment_is_passed_on(world: World, monkeypatch: pytest.MonkeyPatch):
    """A container has what its pod says, and what an image would give."""
    monkeypatch.setenv("OF_THE_NODE", "1")
    await world.run({"name": "main", "image": "i", "command": ["env"]})
    assert {line.partition("=")[0] for line in await world.logs()} == {"PATH", "HOME", "TMPDIR", "LANG", "HOSTNAME"}


async def test_command_and_args_are_expanded(world: World):
    """As words, each on its own."""
    env = [{"name": "WHO", "value": "you  there"}]
    await world.run(
        {"name": "main", "image": "i", "command": ["printf", "%s|"], "args": ["$(WHO)", "$(NO)", "$$(WHO)"], "env": env}
    )
    assert await world.logs() == ["you  there|$(NO)|$(WHO)|"]


def test_dollars():
    """Kubernetes' own cases: only a name in parentheses is one."""
    env = {"A": "1", "B": "$(A)"}
    cases = {
        "$(A)": "1",
        "$(B)": "$(A)",
        "$$(A)": "$(A)",
        "$$$(A)": "$1",
        "$A": "$A",
        "$(": "$(",
        "$(A": "$(A",
        "a$": "a$",
        "$$": "$",
    }
    assert {text: expanded(text, env) for text in cases} == cases


async def test_python_is_the_image(world: World):
    """``python`` is the node's interpreter, wherever PATH pointed before."""
    import sys

    await world.run({"name": "main", "image": "any", "command": ["python", "-c", "import sys; print(sys.prefix)"]})
    assert await world.logs() == [sys.prefix]


async def test_a_container_waits_for_what_it_names(world: World):
    """CreateContainerConfigError with the name of what is missing, until it is there."""
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}]
    await world.run(sh("echo $TOKEN", env=env), wait=False)
    pod = await world.until(lambda p: reason(p) == "CreateContainerConfigError")
    assert (phase(pod), state(pod)[1]["message"]) == ("Pending", 'secret "keys" not found')
    await secret(world, other="1")
    pod = await world.until(lambda p: "couldn't find" in state(p)[1].get("message", ""))
    assert state(pod)[1]["message"] == f"couldn't find key token in Secret {world.namespace}/keys"
    await secret(world, "unrelated")
    encoded = {"data": {"token": base64.b64encode(b"now").decode()}}
    await world.kube.patch(SECRETS, "keys", encoded, namespace=world.namespace)
    await world.until(lambda p: phase(p) == "Succeeded")
    assert await world.logs() == ["now"]


# Volumes


async def test_volumes_are_where_the_pod_says(world: World, tmp_path: Path):
    """Secrets, config maps, fields and directories at paths that the machine does not have; nothing of it is changed."""
    await secret(world, token="s3cret")
    await config(world, a="1", b="2")
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("from the host\n")
    volumes = [
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "config", "configMap": {"name": "options", "items": [{"key": "b", "path": "deep/b"}]}},
        {"name": "fields", "downwardAPI": {"items": [{"path": "labels", **field("metadata.labels")}]}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host"), "type": "Directory"}},
        {"name": "empty", "emptyDir": {}},
        {"name": "all", "projected": {"sources": [{"secret": {"name": "keys"}}, {"configMap": {"name": "options"}}]}},
    ]
    paths = {"secret": "/etc/flyte/secrets", "config": "/var/inputs", "fields": "/nowhere/fields", "host": "/nowhere/host"}
    paths |= {"empty": "/var/outputs", "all": "/etc/flyte/all"}
    mounts = [{"name": name, "mountPath": path} for name, path in paths.items()]
    script = (
        "cat /etc/flyte/secrets/token; echo; cat /var/inputs/deep/b; echo;"
        "cat /nowhere/fields/labels; echo; cat /nowhere/host/file;"
        "ls /etc/flyte/all; echo written > /var/outputs/here; cat /var/outputs/here; echo more > /nowhere/host/more;"
        "test -e /etc/passwd && test -e /dev/null && test -d /var/tmp && echo the rest is there;"
        "echo x > /etc/flyte/secrets/token || echo read only"
    )
    await world.run(sh(script, volumeMounts=mounts), volumes=volumes, metadata={"labels": {"app": "web"}})
    lines = [line for line in await world.logs() if "cannot create" not in line]
    written = ["s3cret", "2", 'app="web"', "from the host", "a", "b", "token", "written", "the rest is there", "read only"]
    assert lines == written
    assert (tmp_path / "host" / "more").read_text() == "more\n"
    for path in paths.values():
        assert not Path(path).exists()


async def test_containers_share_an_empty_directory(world: World):
    """And a new pod has a new one; subPath shows a part of it."""
    volumes = [{"name": "data", "emptyDir": {}}]
    part = {"name": "data", "mountPath": "/part", "subPathExpr": "$(PART)"}
    writer = sh("mkdir -p /data/sub; echo shared > /data/sub/file", "writer", **mounted("data", "/data"))
    reader = sh("cat /part/file; ls /part", env=[{"name": "PART", "value": "sub"}], volumeMounts=[part])
    await world.run(reader, initContainers=[writer], volumes=volumes)
    assert await world.logs() == ["shared", "file"]


async def test_memory_to_share(world: World):
    """A volume over /dev/shm, which the machine has, is the pod's own."""
    mark = unique("mark")
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    script = f"ls /dev/shm | wc -l; touch /dev/shm/{mark}; ls /dev/shm; echo x > /dev/null; echo said > /dev/termination-log"
    pod = await world.run(sh(script, **mounted("shm", "/dev/shm")), volumes=volumes)
    assert await world.logs() == ["0", mark]
    assert state(pod)[1]["message"] == "said\n"
    assert not Path("/dev/shm", mark).exists()


async def test_a_sidecar_stores_what_the_container_left(world: World):
    """It is up before the container begins, hears SIGTERM when that has ended, and has the pod's grace to finish."""
    volumes = [{"name": "data", "emptyDir": {}}]
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "until [ -e /run/side/ready ]; do sleep 0.02; done"]}}}
    script = "trap 'sleep 0.2; cp /run/side/out /run/side/stored; cat /run/side/stored; exit 0' TERM; sleep 0.2;"
    script += "touch /run/side/ready; while :; do sleep 0.02; done"
    side = sh(script, "side", restartPolicy="Always", lifecycle=hook, **mounted("data", "/run/side"))
    main = sh("test -e /out/ready && echo result > /out/out", **mounted("data", "/out"))
    pod = await world.run(main, initContainers=[side], volumes=volumes)
    assert (phase(pod), state(pod, "side")[1]["exitCode"]) == ("Succeeded", 0)
    assert await world.logs("side") == ["result"]
    assert any(running(p) and state(p)[0] == "terminated" for p in world.seen["pod"])


async def test_a_volume_may_hide_where_the_container_lives(world: World):
    """An emptyDir at /tmp, which the node itself is below."""
    script = "cd $HOME; cd $TMPDIR; cd $OLDPWD; pwd > own; cat own > /tmp/x; cmp own /tmp/x && echo same"
    await world.run(sh(script, **mounted("data", "/tmp")), volumes=[{"name": "data", "emptyDir": {}}])
    assert (await world.logs())[-1] == "same"


async def test_a_working_directory_that_is_not_there(world: World):
    """Is made, for this container alone."""
    await world.run(sh("pwd; echo 1 > file; cat file", workingDir="/work-of-nobody/here"))
    assert await world.logs() == ["/work-of-nobody/here", "1"]
    assert not Path("/work-of-nobody").exists()


async def test_a_pod_waits_for_its_volumes(world: World):
    """FailedMount, until what they are made of is there."""
    volumes = [{"name": "v", "secret": {"secretName": "keys"}}]
    await world.run(sh("cat /v/token", **mounted("v", "/v")), volumes=volumes, wait=False)
    told = await world.told("FailedMount")
    assert told["message"] == 'MountVolume.SetUp failed for volume "v" : secret "keys" not found'
    pod = await world.until(status)
    assert (phase(pod), reason(pod)) == ("Pending", "ContainerCreating")
    await secret(world, token="late")
    await world.until(lambda p: phase(p) == "Succeeded")
    assert await world.logs() == ["late"]


async def test_a_node_without_mount_namespaces_refuses_volumes(world: World):
    """And says what it lacks; a pod without volumes runs."""
    world.kubelet.runtime.mount_refusal = "unshare: Operation not permitted"
    pod = await world.run(sh("true", **mounted("v", "/v")), volumes=[{"name": "v", "emptyDir": {}}])
    assert (phase(pod), pod["status"]["reason"]) == ("Failed", "UnexpectedAdmissionError")
    assert "cannot give containers their volumes: unshare: Operation not permitted" in pod["status"]["message"]
    assert phase(await world.run(sh("true"), name="plain")) == "Succeeded"


# Images


async def test_an_image_that_no_registry_has(world: World):
    """ErrImagePull and ImagePullBackOff in turns, in containerd's words; when it is there the pod runs."""
    world.kubelet.images.missing.add("ghcr.io/nobody/*")
    await world.run(sh("true") | {"image": "ghcr.io/nobody/nothing:v1"}, wait=False)
    pod = await world.until(lambda p: reason(p) == "ErrImagePull")
    assert state(pod)[1]["message"].startswith(
        'rpc error: code = NotFound desc = failed to pull and unpack image "ghcr.io/nobody/'
    )
    assert phase(pod) == "Pending"
    pod = await world.until(lambda p: reason(p) == "ImagePullBackOff")
    assert state(pod)[1]["message"].startswith('Back-off pulling image "ghcr.io/nobody/nothing:v1"')
    await world.until(lambda p: reason(p) == "ErrImagePull")
    assert (await world.told("BackOff"))["message"] == 'Back-off pulling image "ghcr.io/nobody/nothing:v1"'
    world.kubelet.images.missing.clear()
    await world.until(lambda p: phase(p) == "Succeeded")


@pytest.mark.parametrize(
    ("image", "policy", "waits", "says"),
    [
        (
            "nobody",
            "Always",
            "ErrImagePull",
            'reference "docker.io/library/nobody:latest": pull access denied',
        ),
        ("nobody:v1", "Never", "ErrImageNeverPull", 'Container image "nobody:v1" is not present with pull policy of Never'),
        (
            "Not/A::name",
            "IfNotPresent",
            "InvalidImageName",
            'parse image name "Not/A::name": invalid reference format',
        ),
    ],
)
async def test_an_image_that_cannot_be_had(world: World, image: str, policy: str, waits: str, says: str):
    """Each trouble has its reason; such a pod can be deleted."""
    world.kubelet.images.missing.add("nobody*")
    await world.run(sh("true") | {"image": image, "imagePullPolicy": policy}, wait=False)
    pod = await world.until(lambda p: reason(p) == waits)
    assert says in state(pod)[1]["message"]
    await world.delete()
    assert phase((await world.gone())[-1]) == "Failed"


async def test_a_slow_image(world: World):
    """The pod is pending while it is pulled, and the events say so."""
    world.kubelet.images.slow["slow:*"] = 0.3
    pod = await world.run(sh("true") | {"image": "slow:v1"})
    assert phase(pod) == "Succeeded"
    assert (await world.told("Pulling"))["message"] == 'Pulling image "slow:v1"'
    assert (await world.told("Pulled"))["message"].startswith('Successfully pulled image "slow:v1" in 3')


# Handlers


def probe(script: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 5, **more}


async def test_readiness_is_what_its_probe_says(world: World, tmp_path: Path):
    """Running is not ready; a probe that begins to fail takes it back."""
    mark = tmp_path / "ready"
    await world.run(sh("sleep 60", readinessProbe=probe(f"test -e {mark}", failureThreshold=1)), wait=False)
    pod = await world.until(running)
    assert not status(pod)["ready"]
    assert (await world.told("Unhealthy"))["message"].startswith("Readiness probe failed")
    mark.touch()
    await world.until(ready)
    mark.unlink()
    await world.until(lambda p: not ready(p))


async def test_a_container_that_is_not_alive_is_restarted(world: World):
    """By its liveness probe, after its own grace; the startup probe comes before it."""
    startup = probe("test -e $HOME/up", failureThreshold=30)
    liveness = probe("exit 1", failureThreshold=1, terminationGracePeriodSeconds=1)
    script = "touch $HOME/up; while :; do sleep 0.05; done"
    await world.run(sh(script, startupProbe=startup, livenessProbe=liveness), restartPolicy="Always", wait=False)
    pod = await world.until(lambda p: status(p).get("restartCount"))
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 143
    await world.told("Unhealthy", "Liveness probe failed")
    assert (await world.told("Killing"))["message"] == "Container main failed liveness probe, will be restarted"


async def test_probes_over_the_network(world: World):
    """A port by number or name, and an HTTP answer below 400."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    script = f"exec python -m http.server {port} --bind 127.0.0.1 2>/dev/null"
    tcp = {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 30}
    http = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = sh(script, startupProbe=tcp, readinessProbe=http, ports=[{"name": "web", "containerPort": port}])
    lost = {"httpGet": {"path": "/nothing", "port": port}, "periodSeconds": 1, "timeoutSeconds": 5}
    await world.run(container, sh("sleep 60", "lost", readinessProbe=lost), wait=False)
    pod = await world.until(lambda p: status(p).get("ready"))
    assert not ready(pod)


async def test_poststart_runs_before_the_container_counts_as_started(world: World):
    """What it wrote is there; one that fails ends the container."""
    good = {"postStart": {"exec": {"command": ["sh", "-c", "echo hook > hooked"]}}}
    await world.run(sh("while ! test -s hooked; do sleep 0.02; done; cat hooked", lifecycle=good))
    assert await world.logs() == ["hook"]
    bad = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}}
    pod = await world.run(sh("sleep 60", lifecycle=bad), name="bad", terminationGracePeriodSeconds=1)
    assert (phase(pod), state(pod)[1]["exitCode"]) == ("Failed", 143)
    assert (await world.told("FailedPostStartHook", name="bad"))["message"] == "PostStartHook failed: no"
