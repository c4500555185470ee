"""Apps come back with the server, however it went, and never twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
from flyteidl2.app import app_definition_pb2 as idl

from tests.sdk.durability.stand import Server, gone, standing
from tests.sdk.test_apps import ACTIVE, DOMAIN, PROJECT, Stage, app


def of_apps(server: Server, name: str) -> list[psutil.Process]:
    """The processes of an app, by where they run."""
    return [process for process in server.survivors() if f"{PROJECT},{DOMAIN},{name}," in process.cwd()]


def keeper(server: Server) -> int:
    return int(json.loads((server.data / "apps" / "keeper" / "keeper").read_bytes())["pid"])


async def test_an_app_outlives_a_killed_server(tmp_path: Path) -> None:
    """kill -9 leaves it alone, the keeper's too: the next server has the same process, and no other.

    One that ended meanwhile is started again; so is one that was told an address of the server that is wrong by now.
    """
    async with standing(tmp_path, APPS_BACKOFF="0.05") as (server, _):
        assert not (server.data / "apps").exists()  # it costs nothing where there is none
        stage = Stage(server.address)
        for name in ("lives", "ends"):
            await asyncio.to_thread(stage.create, app(name, least=1))
        lives, ends = [await asyncio.to_thread(stage.pid, name) for name in ("lives", "ends")]
        await server.kill()
        os.kill(ends, signal.SIGKILL)
        await gone(ends)
        await server.start()
        assert await asyncio.to_thread(stage.pid, "lives") == lives
        assert await asyncio.to_thread(stage.pid, "ends") != ends
        await server.kill()
        os.kill(keeper(server), signal.SIGKILL)
        server.port = 0
        await server.start()
        again = Stage(server.address)
        await gone(lives)
        assert await asyncio.to_thread(again.pid, "lives") != lives
        for name in ("lives", "ends"):
            assert [process.pid for process in of_apps(server, name)] == [await asyncio.to_thread(again.pid, name)]


async def test_a_graceful_stop_ends_apps_until_the_next_start(tmp_path: Path) -> None:
    """Nothing is left of them; what ran runs again by itself, what slept sleeps on, what was stopped is stopped."""
    async with standing(tmp_path) as (server, _):
        stage = Stage(server.address)
        for asked in (app("works", least=1), app("sleeps", idle=0.01), app("stops")):
            await asyncio.to_thread(stage.create, asked)
        pid = await asyncio.to_thread(stage.pid, "works")
        await asyncio.to_thread(stage.until, "sleeps", ACTIVE, idl.Status.SCALED_TO_ZERO)
        stopped = await asyncio.to_thread(stage.running, "stops")
        stopped.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
        await asyncio.to_thread(stage.update, stopped)
        await asyncio.to_thread(stage.until, "stops", idl.Status.DEPLOYMENT_STATUS_STOPPED)
        assert await server.stop() == 0
        assert server.survivors() == []
        await server.start()
        assert await asyncio.to_thread(stage.pid, "works") != pid
        works = await asyncio.to_thread(stage.running, "works")
        assert [condition.substate for condition in works.status.conditions].count(idl.Status.RUNNING) == 2
        assert of_apps(server, "sleeps") == of_apps(server, "stops") == []
