"""A real control plane of Kubernetes on this machine, built from its Go modules: what the fake is held to.

    python -m tests.cluster.realserver.serve --kubeconfig PATH [--bare]

etcd, API server with RBAC, controllers and scheduler, but no nodes: tests bring a virtual one. With ``--bare``, only etcd
and the API server. Building needs Go and takes ten minutes, once; the programs stay in the user's cache.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from ssl import create_default_context
from threading import Event
from types import FrameType

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VERSION = "v1.36.3"
_HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flyte-unified" / f"kubernetes-{VERSION}"
_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.realserver.serve", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="written when all is up, removed at the end")
    parser.add_argument("--bare", action="store_true", help="no controllers and no scheduler")
    options = parser.parse_args()
    if not built() and not build():
        return 2
    over = Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with running(options.kubeconfig.absolute(), bare=options.bare) as programs:
        sys.stdout.write(f"Kubernetes {VERSION} is up: export FLYTE_TEST_KUBECONFIG={options.kubeconfig.absolute()}\n")
        sys.stdout.flush()
        while not over.wait(1.0):
            for name, process in programs.items():
                if process.poll() is not None:
                    sys.stderr.write(f"{name} has ended: {process.returncode}\n")
                    return 1
    return 0


def built() -> bool:
    return all((CACHE / name).exists() for name in ("etcd", *_COMMANDS))


def build() -> bool:
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("Go is not installed: Kubernetes cannot be built here\n")
        return False
    sys.stderr.write(f"building Kubernetes {VERSION} into {CACHE}: this takes some minutes\n")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for name in ("go.mod", "etcd.go"):
            shutil.copy(_HERE / name, directory)
        told = f"-ldflags=-X k8s.io/component-base/version.gitVersion={VERSION}"
        commands = [f"k8s.io/kubernetes/cmd/{name}" for name in _COMMANDS]
        subprocess.run([go, "build", "-mod=mod", "-o", str(CACHE / "etcd"), "etcd.go"], check=True, cwd=directory)
        subprocess.run([go, "build", "-mod=mod", told, "-o", f"{CACHE}/", *commands], check=True, cwd=directory)
    return True


@contextlib.contextmanager
def running(
    kubeconfig: Path, *, bare: bool = False, address: str = "127.0.0.1"
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The cluster whose administrator ``kubeconfig`` is: its programs. Everything is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="realserver-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        store, peers, port = _free_ports(3)
        token = secrets.token_hex(16)
        (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (directory / "accounts.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        programs: dict[str, subprocess.Popen[bytes]] = {}

        def begin(program: str, *arguments: str) -> None:
            programs[program] = stack.enter_context(_program(directory, program, *arguments))

        begin("etcd", *_etcd(store, peers))
        begin("kube-apiserver", *_api_server(store, address, port))
        authority = directory / "certificates/apiserver.crt"
        _await_ready(f"https://{address}:{port}/readyz", authority, token)
        kubeconfig.touch(mode=0o600)
        stack.callback(kubeconfig.unlink, missing_ok=True)
        kubeconfig.write_text(_kubeconfig(f"https://{address}:{port}", authority, token))
        if not bare:
            shared = ("--kubeconfig", str(kubeconfig), "--secure-port=0")
            keys = ("--service-account-private-key-file=accounts.key", f"--root-ca-file={authority}")
            # Leases, by which tests see that they are there; a busy desk does not take them away: their loss ends both.
            lease = ("--leader-elect-lease-duration=60s", "--leader-elect-renew-deadline=50s")
            begin("kube-controller-manager", *shared, *keys, *lease)
            begin("kube-scheduler", *shared, *lease)
        yield programs


def _etcd(store: int, peers: int) -> list[str]:
    address = f"http://127.0.0.1:{store}"
    peer = f"http://127.0.0.1:{peers}"
    return [
        "--data-dir=etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={address}",
        f"--advertise-client-urls={address}",
        f"--listen-peer-urls={peer}",
    ]


def _api_server(store: int, address: str, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{store}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        "--cert-dir=certificates",
        "--authorization-mode=RBAC",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        "--token-auth-file=tokens.csv",
        "--service-account-key-file=accounts.key",
        "--service-account-signing-key-file=accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--allow-privileged=true",
        "--enable-aggregator-routing=true",  # webhooks are reached at their pods: there is no kube-proxy
    ]


@contextlib.contextmanager
def _program(directory: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in ``directory``, where its log is."""
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(CACHE / name), *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is ours alone: we end what we began, in order
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(url: str, authority: Path, token: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(asked, timeout=5, context=create_default_context(cafile=str(authority))):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                log = (authority.parents[1] / "kube-apiserver.log").read_text()[-2000:]
                raise RuntimeError(f"the API server does not get ready: {error}\n{log}") from error
        time.sleep(0.2)  # nothing tells us


def _kubeconfig(url: str, authority: Path, token: str) -> str:
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "realserver",
        "clusters": [{"name": "realserver", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "realserver", "context": {"cluster": "realserver", "user": "admin"}}],
    }
    return yaml.safe_dump(config)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in found]


if __name__ == "__main__":
    sys.exit(main())
