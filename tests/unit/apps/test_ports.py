"""Which port an app gets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from flyte_unified.apps.local.ports import Ports, listens
from flyte_unified.apps.model import AppKey

ONE, OTHER = AppKey("p", "d", "one"), AppKey("p", "d", "other")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_first_has_its_own_and_the_next_another() -> None:
    """Until it is given back."""
    ports, port = Ports(), free_port()
    assert ports.take(ONE, port) == port
    moved = ports.take(OTHER, port)
    assert moved != port
    assert ports.whose(port) == "app p/d/one"
    ports.release(port)
    assert ports.take(OTHER, port) == port


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_of_somebody_else_is_not_given(address: str) -> None:
    """Wherever they listen."""
    with socket.socket() as taken:
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = Ports()
        assert ports.take(ONE, port) != port
        assert ports.whose(port) == "another program on this machine"


def test_a_port_that_is_held_from_before_is_nobody_elses() -> None:
    """An app that a former server started listens there."""
    ports, port = Ports(), free_port()
    ports.hold(ONE, port)
    assert ports.take(OTHER, port) != port


def test_only_who_listens_itself_has_the_port() -> None:
    """What a stranger says on an app's port is not the app's. A process below the app's is the app."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with (
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as app,
        socket.create_server(("127.0.0.1", 0)) as stranger,
    ):
        assert app.stdout is not None
        port = int(app.stdout.readline())
        assert listens(app.pid, port)
        assert listens(os.getpid(), port)
        assert not listens(app.pid, stranger.getsockname()[1])
        assert not listens(0, port)
        app.communicate(b"\n")
        assert not listens(app.pid, port)
