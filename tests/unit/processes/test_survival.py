"""Tasks outlive the server and the keeper, and what happens meanwhile is not lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from flyte_unified.core.errors import Unavailable
from flyte_unified.launchers.processes import facts, keeper, task
from flyte_unified.launchers.processes.work import Adopted, Exited
from tests.unit.processes.harness import PYTHON, Processes, gone, processes, survivors

WAITS = """
import os, sys, time
n = 0
print("ready", flush=True)
while not os.path.exists("end"):
    time.sleep(0.005)
    if os.path.exists("more"):
        os.unlink("more")
        n += 1
        print("more", n, flush=True)
        open("done%d" % n, "w").close()
print("bye")
sys.exit(5)"""


async def test_a_new_server_finds_what_runs_and_hears_its_end(tmp_path: Path) -> None:
    """When a server leaves without a word, its tasks go on; the next one adopts them and learns their exit status."""
    async with processes(tmp_path) as first:
        await first.python("a", WAITS)
        await first.says("a", "ready")
        await first.launcher.close()
        second = Processes(tmp_path)
        (adopted,) = await second.launcher.start()
        assert adopted == Adopted("a", (await first.started("a")).pid, adopted.at)
        assert second.launcher.keeper_pid == first.launcher.keeper_pid
        _touch(tmp_path, "end")
        ended = await second.exited("a")
        assert (ended.exit_code, ended.known) == (5, True)
        await second.launcher.stop(0)


async def test_an_exit_while_no_server_listens_is_told_until_it_is_forgotten(tmp_path: Path) -> None:
    """The exit waits in a file for the next server, and the one after, until one says that it has it."""
    first = Processes(tmp_path)
    await first.launcher.start()
    await first.python("a", WAITS)
    await first.python("b", WAITS)
    await first.says("a", "ready")
    await first.says("b", "ready")
    await first.launcher.close()
    _touch(tmp_path, "end")
    await gone((await first.started("a")).pid)

    async def told() -> list[object]:
        server = Processes(tmp_path)
        found = await server.launcher.start()
        events = [event for event in found if isinstance(event, Exited)] or [await server.exited("a")]
        await server.launcher.close()
        return events

    for _ in range(2):
        (event,) = await told()
        assert isinstance(event, Exited)
        assert (event.id, event.exit_code) == ("a", 5)
    async with processes(tmp_path) as last:
        last.launcher.forget("a")
    async with processes(tmp_path) as fresh:
        assert [event.id for event in fresh.events] == []


async def test_tasks_survive_the_keeper_with_every_line(tmp_path: Path) -> None:
    """A killed keeper costs no task and no line: not one written before, meanwhile, or after."""
    async with processes(tmp_path) as server:
        await server.python("a", WAITS)
        await server.says("a", "ready")
        await server.launcher.close()
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        await gone(server.launcher.keeper_pid)
        _touch(tmp_path, "more")
        await _appears(tmp_path / "work/a/done1")
        second = Processes(tmp_path)
        (adopted,) = await second.launcher.start()
        assert isinstance(adopted, Adopted)
        assert second.launcher.keeper_pid != server.launcher.keeper_pid
        await second.says("a", "more 1")
        _touch(tmp_path, "more")
        await second.says("a", "more 2")
        _touch(tmp_path, "end")
        ended = await second.exited("a")
        assert (ended.exit_code, ended.known) == (None, False)
        assert await second.output("a") == ["ready", "more 1", "more 2", "bye"]
        await second.launcher.stop(0)


async def test_a_living_server_replaces_a_dead_keeper(tmp_path: Path) -> None:
    """The server notices that its keeper died, starts another, and goes on hearing and killing."""
    async with processes(tmp_path) as server:
        await server.python("a", WAITS)
        await server.python("b", WAITS)
        await server.says("a", "ready")
        await server.says("b", "ready")
        dead = server.launcher.keeper_pid
        os.kill(dead, signal.SIGKILL)
        await server.launch("c", "sh", "-c", "exit 4")
        assert (await server.exited("c")).exit_code == 4
        assert server.launcher.keeper_pid != dead
        await server.launcher.kill("a", 5)
        await server.exited("a")
        assert server.launcher.running("b")
        _touch(tmp_path, "end", work="b")
        await server.exited("b")
        assert any("takes the tasks over" in message for message in server.messages)


async def test_a_keeper_that_a_dead_server_had_just_started_is_found(tmp_path: Path) -> None:
    """Where another keeper was begun and is not known yet, ours gives way, and the server asks that one."""
    async with processes(tmp_path) as first:
        await first.python("a", WAITS)
        await first.says("a", "ready")
        await first.launcher.close()
        place = tmp_path / "keeper/keeper"
        known = place.read_bytes()
        place.write_text('{"socket": "/nobody"}')
        second = Processes(tmp_path)
        starting = asyncio.create_task(second.launcher.start())
        ours = await _waits_for_lock(tmp_path)
        place.write_bytes(known)
        os.kill(ours, signal.SIGALRM)  # its patience is over
        (adopted,) = await starting
        assert isinstance(adopted, Adopted)
        assert second.launcher.keeper_pid == first.launcher.keeper_pid
        _touch(tmp_path, "end")
        await second.exited("a")
        await second.launcher.stop(0)


async def test_a_stop_waits_for_the_keeper_that_is_being_replaced(tmp_path: Path) -> None:
    """A stop just after a keeper's death leaves neither tasks nor the new keeper behind."""
    async with processes(tmp_path) as server:
        await server.python("a", WAITS)
        await server.says("a", "ready")
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        await gone(server.launcher.keeper_pid)
        await server.launcher.stop(5)
        assert await server.exited("a")
        assert survivors(tmp_path) == []


async def test_an_adopted_tree_is_killed_too(tmp_path: Path) -> None:
    """After a keeper's death the kill still reaches a grandchild in another session."""
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    print("grandchild", os.getpid(), flush=True)
time.sleep(600)"""
    async with processes(tmp_path) as server:
        await server.python("a", code)
        await server.says("a", "grandchild")
        grandchild = int((await server.output("a"))[0].split()[1])
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        await server.launch("b", "true")
        await server.exited("b")
        await server.launcher.kill("a", 1)
        await server.exited("a")
        await gone(grandchild)


async def test_a_process_that_died_with_the_keeper_is_reported(tmp_path: Path) -> None:
    """A task that ended while there was no keeper is told as ended, its status unknown."""
    async with processes(tmp_path) as server:
        await server.python("a", WAITS)
        await server.says("a", "ready")
        await server.launcher.close()
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        pid = (await server.started("a")).pid
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        second = Processes(tmp_path)
        found = await second.launcher.start()
        ended = next((e for e in found if isinstance(e, Exited)), None) or await second.exited("a")
        assert (ended.id, ended.known, ended.exit_code) == ("a", False, None)
        await second.launcher.stop(0)


async def test_another_process_with_the_same_id_is_not_adopted(tmp_path: Path) -> None:
    """Process ids are reused: only boot id, process id and start time together are an identity."""
    home = tmp_path / "keeper/work/a@1"
    home.mkdir(parents=True)
    order = {"id": "a", "directory": str(tmp_path), "log": str(tmp_path / "log"), "log_limit": 1 << 20, "memory_limit": 0}
    (home / "order").write_text(json.dumps(order))
    other = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    (home / "pid").write_text(json.dumps({"pid": other.pid, "start": "1", "boot": facts.boot_id(), "at": 1}))
    server = Processes(tmp_path)
    found = await server.launcher.start()
    ended = next((event for event in found if isinstance(event, Exited)), None) or await server.exited("a")
    assert not ended.known
    await server.launcher.stop(0)
    assert other.returncode is None
    other.kill()
    assert await other.wait() == -signal.SIGKILL


async def test_a_task_that_cannot_be_taken_over_is_ended_and_told(tmp_path: Path) -> None:
    """Where the new keeper cannot write the task's log it does not let it run on unseen; the others are not affected."""
    async with processes(tmp_path) as server:
        for work in ("a", "b"):
            await server.python(work, WAITS)
            await server.says(work, "ready")
        await server.launcher.close()
        os.kill(server.launcher.keeper_pid, signal.SIGKILL)
        (tmp_path / "logs").rename(tmp_path / "moved")
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs/a").mkdir()
        second = Processes(tmp_path)
        found = await second.launcher.start()
        assert {(type(event), event.id) for event in found} == {(Exited, "a"), (Adopted, "b")}
        await gone((await server.started("a")).pid)
        await second.launcher.stop(0)


async def test_what_was_ordered_but_never_started_is_launched_again(tmp_path: Path) -> None:
    """An order without a process is dropped by a new keeper, and a late child of the old one cannot claim it."""
    home = tmp_path / "keeper/work/a@1"
    home.mkdir(parents=True)
    (home / "order").write_text(json.dumps({"id": "a"}))
    assert task.void(str(home))
    with pytest.raises(FileExistsError):
        os.link(home / "order", home / "pid")
    (home / "pid").unlink()
    async with processes(tmp_path) as server:
        assert not home.exists()
        await server.launch("a", "sh", "-c", "exit 3")
        assert (await server.exited("a")).exit_code == 3


async def test_an_ephemeral_server_takes_everything_along(tmp_path: Path) -> None:
    """When its connection closes, however that comes, its tasks and its keeper end."""
    server = Processes(tmp_path, ephemeral=True)
    await server.launcher.start()
    await server.launch("a", "sleep", "600")
    pid = (await server.started("a")).pid
    await server.launcher.close()
    await gone(pid)
    await gone(server.launcher.keeper_pid)
    assert survivors(tmp_path) == []


async def test_a_keeper_that_nobody_needs_ends_itself(tmp_path: Path) -> None:
    """Without a server it stays as long as its tasks, and a little longer."""
    server = Processes(tmp_path)
    await server.launcher.start()
    await server.python("a", WAITS)
    await server.says("a", "ready")
    await server.launcher.close()
    _touch(tmp_path, "end")
    await gone(server.launcher.keeper_pid)
    assert survivors(tmp_path) == []


async def test_a_keeper_of_another_version_makes_room(tmp_path: Path) -> None:
    """A server that meets another version's keeper replaces it; the tasks stay."""
    first = Processes(tmp_path)
    await first.launcher.start()
    await first.python("a", WAITS)
    await first.says("a", "ready")
    await first.launcher.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "VERSION", keeper.VERSION + 1)
        second = Processes(tmp_path)
        with pytest.raises(Unavailable):  # whatever it starts is of the version on disk
            await second.launcher.start()
    await gone(first.launcher.keeper_pid)
    async with processes(tmp_path) as second:
        assert second.launcher.running("a")
        _touch(tmp_path, "end")
        await second.exited("a")


async def test_only_one_keeper_owns_a_directory(tmp_path: Path) -> None:
    """A keeper that is started beside another gives up, and harms it not."""
    async with processes(tmp_path) as server:
        second = await asyncio.create_subprocess_exec(PYTHON, "-I", "-S", keeper.__file__, tmp_path / "keeper", "0")
        assert await second.wait() == -signal.SIGALRM
        await server.launch("a", "sh", "-c", "exit 3")
        assert (await server.exited("a")).exit_code == 3


async def test_a_long_data_directory_gets_a_short_socket(tmp_path: Path) -> None:
    """A Unix socket's path is short; where the directory's is not, the socket stands in a private one."""
    root = tmp_path / ("d" * 120)
    async with processes(root) as server:
        place = Path(json.loads((root / "keeper/keeper").read_text())["socket"])
        assert not place.is_relative_to(root)
        assert place.parent.stat().st_mode & 0o777 == 0o700
        await server.launch("a", "true")
        await server.exited("a")
    assert not place.parent.exists()


def _touch(root: Path, name: str, *, work: str = "a") -> None:
    (root / "work" / work / name).touch()


async def _appears(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110 - the task has no other way to speak while nobody reads it
            await asyncio.sleep(0.005)


async def _waits_for_lock(root: Path) -> int:
    """The keeper that is started while another has the directory."""
    async with asyncio.timeout(30):
        while True:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if str(root / "keeper") in child.cmdline():
                        return child.pid
            await asyncio.sleep(0.005)
