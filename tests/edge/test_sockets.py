"""The port: which addresses, and what is said when they cannot be had."""

from __future__ import annotations

import contextlib
import errno
import socket

import pytest

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.rpc.sockets import listen, port_of


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


@pytest.fixture
def opened():
    """``listen`` with sockets that are closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda host, port: [stack.enter_context(sock) for sock in listen(host, port)]


@needs_ipv6
def test_localhost_is_both_loopback_addresses_on_one_port(opened):
    """A client may try ::1 or 127.0.0.1 first; nothing else of the machine is reachable."""
    sockets = opened("localhost", 0)
    assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1", "::1"]
    assert {sock.getsockname()[1] for sock in sockets} == {port_of(sockets)}
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, port_of(sockets))).close()


def test_a_machine_without_ipv6_has_the_other_address(opened, monkeypatch):
    """::1 is left out where it cannot exist."""
    real = socket.socket

    def without_ipv6(family, *arguments):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
        return real(family, *arguments)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert [sock.getsockname()[0] for sock in opened("localhost", 0)] == ["127.0.0.1"]


def test_another_host_is_that_address_alone(opened):
    """Only ``localhost`` means two addresses."""
    assert [sock.getsockname()[0] for sock in opened("127.0.0.1", 0)] == ["127.0.0.1"]


@needs_ipv6
def test_a_port_that_is_free_on_one_address_only_is_given_back(opened):
    """The error leaves nothing open: the first address can be taken again."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"port {port} is taken"):
            opened("localhost", port)
        assert port_of(opened("127.0.0.1", port)) == port


@pytest.mark.parametrize(
    ("host", "number", "expected"),
    [
        ("192.0.2.1", None, "is no address of this machine"),
        ("a..b", None, "server.host = 'a..b'"),
        ("127.0.0.1", errno.EACCES, "needs privileges"),
        ("127.0.0.1", errno.ENOBUFS, "cannot listen on 127.0.0.1 port 80"),
    ],
)
def test_what_cannot_be_listened_on_is_explained(monkeypatch, host, number, expected):
    """The error says what to change."""

    class Refusing(socket.socket):
        def bind(self, address):
            raise OSError(number, "refused")

    if number:
        monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(FailedPrecondition) as caught:
        listen(host, 80)
    assert expected in caught.value.message
