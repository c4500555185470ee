"""The way to an API server: who we say we are, what comes back and when, and what becomes of an answer that breaks."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flyte_unified.kube import client, errors
from flyte_unified.kube.client import Kube
from flyte_unified.kube.kinds import PODS
from tests.unit.kube.scripted import Answer, kubeconfig, serving

POD = {"metadata": {"name": "a", "namespace": "n"}}


@asynccontextmanager
async def speaking(path: Path, answer: Answer, **user: Any) -> AsyncIterator[Kube]:
    """A client of a server that answers so, as ``user``."""
    async with serving(answer) as url:
        kube = Kube(kubeconfig=kubeconfig(path / "kubeconfig", url, **user), timeout=5.0)
        await kube.start()
        yield kube
        await kube.stop()


def authorized(expected: str, seen: list[str]) -> Answer:
    """Answers to who has ``expected`` as a token."""

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        if seen[-1] == f"Bearer {expected}":
            return web.json_response(POD)
        return web.json_response({"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}, status=401)

    return answer


async def test_a_token_of_a_file_is_read_again_when_it_is_refused(tmp_path: Path):
    """Tokens expire; the call that finds out does not fail."""
    seen: list[str] = []
    token = tmp_path / "token"
    token.write_text("old")
    async with speaking(tmp_path, authorized("new", seen), tokenFile=str(token)) as kube:
        token.write_text("new")
        assert await asyncio.gather(*(kube.get(PODS, "a", namespace="n") for _ in range(3))) == [POD] * 3
        assert seen[-1] == "Bearer new"
        assert await kube.get(PODS, "a", namespace="n") == POD
        assert seen.count("Bearer old") <= 3


async def test_a_plugin_is_asked_for_a_token(tmp_path: Path):
    """And again when what it gave is refused."""
    seen: list[str] = []
    token = tmp_path / "token"
    token.write_text("old")
    program = (
        "import json, pathlib, sys; token = pathlib.Path(sys.argv[1]).read_text();"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        " 'status': {'token': token}}))"
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", program, str(token)],
        "interactiveMode": "Never",
    }
    async with speaking(tmp_path, authorized("new", seen), exec=plugin) as kube:
        token.write_text("new")
        assert await kube.get(PODS, "a", namespace="n") == POD
        assert seen == ["Bearer old", "Bearer new"]


async def test_whom_the_server_does_not_know_is_told_so_without_a_storm(tmp_path: Path):
    """Credentials that are as bad as before are not sent again."""
    seen: list[str] = []
    async with speaking(tmp_path, authorized("right", seen), token="wrong") as kube:
        for _ in range(3):
            with pytest.raises(errors.Forbidden, match="401 Unauthorized"):
                await kube.get(PODS, "a", namespace="n")
        assert seen == ["Bearer wrong"] * 3


async def test_a_context_chooses_the_cluster(tmp_path: Path):
    """One that does not exist, or no file at all, is told with its name."""
    path = kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:8")
    kube = Kube(kubeconfig=path, context="other")
    await kube.start()
    with pytest.raises(errors.Away, match=r"127\.0\.0\.1:9"):
        await kube.get(PODS, "a", namespace="n")
    await kube.stop()
    with pytest.raises(errors.Unconfigured, match="neither"):
        await Kube(kubeconfig=path, context="neither").start()
    with pytest.raises(errors.Unconfigured, match="nowhere"):
        await Kube(kubeconfig=tmp_path / "nowhere").start()
    (tmp_path / "broken").write_text("{")
    with pytest.raises(errors.Unconfigured, match="broken"):
        await Kube(kubeconfig=tmp_path / "broken").start()


def certificate(directory: Path) -> tuple[ssl.SSLContext, bytes]:
    """A server's side of TLS for 127.0.0.1, and the authority to know it by: itself, as simple as clusters make theirs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an API server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = made.public_bytes(Encoding.PEM)
    (directory / "both").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + authority)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(directory / "both")
    return server, authority


async def test_a_server_is_known_by_its_clusters_authority(tmp_path: Path):
    """And by no other. Python's stricter rules of 3.13 are for authorities of the web."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(POD)

    server, authority = certificate(tmp_path)
    async with serving(answer, tls=server) as url:
        path = kubeconfig(tmp_path / "kubeconfig", url, authority=authority)
        kube = Kube(kubeconfig=path)
        await kube.start()
        assert await kube.get(PODS, "a", namespace="n") == POD
        await kube.stop()
        stranger = Kube(kubeconfig=kubeconfig(tmp_path / "kubeconfig", url))
        await stranger.start()
        with pytest.raises(errors.Away, match=r"(?i)certificate"):
            await stranger.get(PODS, "a", namespace="n")
        await stranger.stop()


async def test_a_client_that_is_not_started_or_is_stopped_says_so(tmp_path: Path):
    """As any other way to have no answer."""
    kube = Kube(kubeconfig=kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:8"))
    with pytest.raises(errors.Away, match="not started"):
        await kube.get(PODS, "a", namespace="n")
    await kube.start()
    await kube.stop()
    await kube.stop()
    with pytest.raises(errors.Away, match="stopped"):
        await kube.get(PODS, "a", namespace="n")


@pytest.mark.parametrize("body", [b"<html>a proxy's greeting</html>", b"", b"[1]"])
async def test_an_answer_that_is_no_object_is_none(tmp_path: Path, body: bytes):
    """However good its status."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with speaking(tmp_path, answer) as kube:
        with pytest.raises(errors.Away, match="create pods n/a: the answer is no"):
            await kube.create(PODS, POD)


async def test_a_redirection_is_not_followed(tmp_path: Path):
    """A write would become a read, and a token go elsewhere."""

    async def answer(request: web.Request) -> web.Response:
        assert request.path != "/elsewhere"
        raise web.HTTPFound("/elsewhere")

    async with speaking(tmp_path, answer, token="secret") as kube:
        with pytest.raises(errors.KubeError):
            await kube.get(PODS, "a", namespace="n")


def streaming(write: Callable[[web.Request, web.StreamResponse], Awaitable[None]]) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await write(request, response)
        return response

    return answer


async def test_a_line_is_told_when_it_is_complete(tmp_path: Path):
    """Not when a buffer is full; lines are not torn where the network tears them."""
    go_on = asyncio.Event()

    async def write(_: web.Request, response: web.StreamResponse) -> None:
        await response.write(b"one\ntw")
        await go_on.wait()
        await response.write(b"o\n\nlast")

    async with (
        speaking(tmp_path, streaming(write)) as kube,
        aclosing(kube.logs("a", namespace="n", container="main", follow=True)) as lines,
    ):
        assert await anext(lines) == b"one"
        go_on.set()
        assert [line async for line in lines] == [b"two", b"", b"last"]


async def test_what_is_asked_of_a_log_reaches_the_server(tmp_path: Path):
    """And nothing that was not asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/n/pods/a/log"
        asked.append(dict(request.query))
        return web.Response(body=b"")

    async with speaking(tmp_path, answer) as kube:
        assert [line async for line in kube.logs("a", namespace="n", container="main")] == []
        since = "2026-01-01T00:00:00Z"
        everything = kube.logs(
            "a", namespace="n", container="c", follow=True, timestamps=False, since_time=since, previous=True, tail_lines=0
        )
        assert [line async for line in everything] == []
    assert asked == [
        {"container": "main", "timestamps": "true"},
        {"container": "c", "follow": "true", "previous": "true", "sinceTime": since, "tailLines": "0"},
    ]


async def test_a_line_without_an_end_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Memory is bounded, and no byte is lost."""
    monkeypatch.setattr(client, "_LONGEST_LINE", 1000)

    async def write(_: web.Request, response: web.StreamResponse) -> None:
        for _ in range(50):
            await response.write(b"x" * 100)
        await response.write(b"\nend\n")

    async with speaking(tmp_path, streaming(write)) as kube:
        lines = [line async for line in kube.logs("a", namespace="n", container="main", follow=True)]
    assert len(lines) > 2
    assert b"".join(lines[:-1]) == b"x" * 5000
    assert lines[-1] == b"end"


async def test_a_log_that_is_cut_is_not_over(tmp_path: Path):
    """The piece of a line that came is not told as a line."""

    async def write(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(b"whole\npart")
        assert request.transport is not None
        request.transport.close()

    lines = []
    async with speaking(tmp_path, streaming(write)) as kube:
        with pytest.raises(errors.Away, match="get pods/log n/a: "):
            async for line in kube.logs("a", namespace="n", container="main", follow=True):
                lines.append(line)  # noqa: PERF401  # what came before the error counts
    assert lines == [b"whole"]


async def test_a_watch_that_is_silent_for_too_long_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its other end may be gone; a log that is not followed must not seem complete then."""
    monkeypatch.setattr(client, "_SILENCE", 0.05)
    left = asyncio.Event()

    async def write(_: web.Request, response: web.StreamResponse) -> None:
        await response.write(json.dumps({"type": "ADDED", "object": POD}).encode() + b"\n")
        await left.wait()

    async with speaking(tmp_path, streaming(write)) as kube:
        told = [change async for change, _ in kube.watch(PODS, namespace="n", resource_version="1")]
        assert told == ["BOOKMARK", "ADDED"]
        kube._timeout = 0.05
        with pytest.raises(errors.Silent):
            [line async for line in kube.logs("a", namespace="n", container="main")]
        left.set()


async def test_a_pod_speaks_as_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a kubeconfig, where Kubernetes says in the environment that we are in a cluster; else by kubectl's rules."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:8")))
    with pytest.raises(errors.Unconfigured, match="token file does not exist"):
        await Kube(kubeconfig=None).start()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    kube = Kube(kubeconfig=None)
    await kube.start()
    with pytest.raises(errors.Away, match=r"127\.0\.0\.1:8"):
        await kube.get(PODS, "a", namespace="n")
    await kube.stop()


def test_a_laptop_does_not_pay_for_kubernetes():
    """The room can be imported without the package, which takes a third of a second."""
    modules = "flyte_unified.kube.client, flyte_unified.kube.informer, flyte_unified.kube.lease"
    program = f"import sys; import {modules}; sys.exit(any(name.split('.')[0] == 'kubernetes' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
