"""The client of connectors, on a server that somebody else wrote."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flyteidl2.connector import connector_pb2
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from flyte_unified.core.errors import Code, InvalidArgument, NotFound, RpcError, Unavailable, Unimplemented
from flyte_unified.net.connectors import ConnectorClient, Endpoint, NoAnswer

JOBS, METADATA = "/flyteidl2.connector.AsyncConnectorService/", "/flyteidl2.connector.ConnectorMetadataService/"
GET = connector_pb2.GetTaskRequest(resource_meta=b"7")


class Connector:
    """Answers what the test says; ``error`` first."""

    def __init__(self) -> None:
        self.error: GRPCError | None = None
        self.asked: list[Any] = []
        self.silent = False

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        pb = connector_pb2
        return {
            f"{JOBS}CreateTask": Handler(self.create, unary, pb.CreateTaskRequest, pb.CreateTaskResponse),
            f"{JOBS}GetTask": Handler(self.get, unary, pb.GetTaskRequest, pb.GetTaskResponse),
            f"{JOBS}DeleteTask": Handler(self.delete, unary, pb.DeleteTaskRequest, pb.DeleteTaskResponse),
            f"{JOBS}GetTaskLogs": Handler(self.logs, stream, pb.GetTaskLogsRequest, pb.GetTaskLogsResponse),
            f"{METADATA}ListConnectors": Handler(self.list, unary, pb.ListConnectorsRequest, pb.ListConnectorsResponse),
        }

    async def create(self, stream: Any) -> None:
        self.asked.append(await stream.recv_message())
        if self.silent:
            await asyncio.Event().wait()
        await stream.send_message(connector_pb2.CreateTaskResponse(resource_meta=b"7"))

    async def get(self, stream: Any) -> None:
        self.asked.append(await stream.recv_message())
        if self.error is not None:
            raise self.error
        await stream.send_message(connector_pb2.GetTaskResponse(resource=connector_pb2.Resource(message="grows")))

    async def delete(self, stream: Any) -> None:
        self.asked.append(await stream.recv_message())
        await stream.send_message(connector_pb2.DeleteTaskResponse())

    async def logs(self, stream: Any) -> None:
        await stream.recv_message()
        for number in range(2):
            part = connector_pb2.GetTaskLogsResponseHeader(token=str(number))
            await stream.send_message(connector_pb2.GetTaskLogsResponse(header=part))
        if self.error is not None:
            raise self.error
        if self.silent:
            await asyncio.Event().wait()

    async def list(self, stream: Any) -> None:
        await stream.recv_message()
        reply = connector_pb2.ListConnectorsResponse()
        for name in ("farm", "mill"):
            reply.connectors.add(name=name).supported_task_categories.add(name=name, version=1)
        await stream.send_message(reply)


@asynccontextmanager
async def serving(connector: Connector, *, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server, protocols = Server([connector]), []
    make = server._protocol_factory

    def made() -> Any:
        protocols.append(make())
        return protocols[-1]

    server._protocol_factory = made  # type: ignore[method-assign]  # it keeps connections when it closes
    await server.start("127.0.0.1", port, ssl=tls)
    try:
        yield server._server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for protocol in (made for made in protocols if hasattr(made, "connection")):  # one that was refused has none
            protocol.connection._transport.close()
        await server.wait_closed()


@asynccontextmanager
async def client(*, timeout: float = 5.0) -> AsyncIterator[ConnectorClient]:
    made = ConnectorClient(timeout=timeout)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


async def test_a_connector_answers() -> None:
    """Jobs, their states, their logs, and what it runs."""
    async with serving(Connector()) as port, client() as asking:
        address = f"127.0.0.1:{port}"
        assert await asking.create(address, connector_pb2.CreateTaskRequest()) == b"7"
        assert (await asking.get(address, GET)).message == "grows"
        parts = [part async for part in asking.logs(address, connector_pb2.GetTaskLogsRequest())]
        assert [part.header.token for part in parts] == ["0", "1"]
        assert [(kind.name, kind.version) for kind in await asking.categories(address)] == [("farm", 1), ("mill", 1)]
        await asking.delete(address, connector_pb2.DeleteTaskRequest(resource_meta=b"7"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.NOT_FOUND, NotFound),
        (Status.UNIMPLEMENTED, Unimplemented),
        (Status.UNAVAILABLE, Unavailable),
        (Status.DEADLINE_EXCEEDED, NoAnswer),
        (Status.INTERNAL, RpcError),
    ],
)
async def test_what_a_connector_says_is_an_error_of_ours(status: Status, kind: type[Exception]) -> None:
    """With its code and its words, and who said so."""
    connector = Connector()
    connector.error = GRPCError(status, "the words")
    async with serving(connector) as port, client() as asking:
        with pytest.raises(kind, match=f"connector 127.0.0.1:{port}: the words") as caught:
            await asking.get(f"127.0.0.1:{port}", GET)
        assert type(caught.value) is kind
        assert getattr(caught.value, "code", None) == (Code.UNAVAILABLE if kind is NoAnswer else Code(status.value))
        with pytest.raises(kind):
            assert [part async for part in asking.logs(f"127.0.0.1:{port}", connector_pb2.GetTaskLogsRequest())]


async def test_what_was_never_sent_is_told_from_what_had_no_answer() -> None:
    """A job may be created again only in the first case."""
    connector = Connector()
    connector.silent = True
    async with serving(connector) as port, client(timeout=0.05) as asking:
        address = f"127.0.0.1:{port}"
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.05 s"):
            await asking.create(address, connector_pb2.CreateTaskRequest())
        with pytest.raises(NoAnswer):
            assert [part async for part in asking.logs(address, connector_pb2.GetTaskLogsRequest())]
    async with client() as asking:
        with pytest.raises(Unavailable, match="can't be reached") as caught:
            await asking.create(address, connector_pb2.CreateTaskRequest())
        assert not isinstance(caught.value, NoAnswer)


async def test_a_connector_that_comes_back_is_found_again() -> None:
    """Nobody has to be told that it was away."""
    connector = Connector()
    async with client() as asking:
        async with serving(connector) as port:
            await asking.get(f"127.0.0.1:{port}", GET)
        with pytest.raises(Unavailable):
            await asking.get(f"127.0.0.1:{port}", GET)
        async with serving(connector, port=port):
            assert (await asking.get(f"127.0.0.1:{port}", GET)).message == "grows"


async def test_a_closed_client_calls_nobody() -> None:
    """Nothing is connected after the end."""
    async with serving(Connector()) as port, client() as asking:
        asking.close()
        with pytest.raises(Unavailable, match="stopping"):
            await asking.get(f"127.0.0.1:{port}", GET)


async def test_tls_by_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked against the machine's authorities."""
    certificate, key = _certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    tls.set_alpn_protocols(["h2"])
    async with serving(Connector(), tls=tls) as port:
        async with client() as stranger:
            with pytest.raises(Unavailable, match="certificate"):
                await stranger.get(f"grpcs://127.0.0.1:{port}", GET)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with client() as asking:
            assert (await asking.get(f"grpcs://127.0.0.1:{port}", GET)).message == "grows"


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("farm:8000", Endpoint("farm", 8000, False)),
        ("grpc://farm:8000", Endpoint("farm", 8000, False)),
        ("grpcs://farm.example.com:443", Endpoint("farm.example.com", 443, True)),
        ("[::1]:8000", Endpoint("::1", 8000, False)),
    ],
)
def test_addresses(address: str, endpoint: Endpoint) -> None:
    """With or without a scheme."""
    assert Endpoint.parse(address) == endpoint


@pytest.mark.parametrize(
    "address", ["", "farm", "farm:", ":8000", "http://farm:80", "farm:8000/path", "farm:99999", "://farm:1"]
)
def test_what_is_no_address(address: str) -> None:
    """Says so, and what is expected."""
    with pytest.raises(InvalidArgument, match="host:port is expected"):
        Endpoint.parse(address)


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farm")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate, private
