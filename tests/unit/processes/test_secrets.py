"""A process is told its secrets and nothing else is: no file, no command line, no other process, no fork server."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import security_pb2

from flyte_unified.core.errors import FailedPrecondition
from flyte_unified.core.ids import ActionKey
from flyte_unified.core.images import variable
from flyte_unified.launchers.processes import mounts
from flyte_unified.launchers.processes import secrets as given_secrets
from flyte_unified.launchers.processes.secrets import Secrets
from flyte_unified.launchers.processes.work import PrivateFiles, Started
from tests.unit.processes.harness import PYTHON, Processes, processes
from tests.unit.processes.test_warm import HEAD

PLACE = "/etc/flyte/secrets"
LOOK = f"""
import json, os, sys
files = {{os.path.relpath(os.path.join(at, n), {PLACE!r}): open(os.path.join(at, n), "rb").read().hex()
         for at, _, names in os.walk({PLACE!r}) for n in names}}
try:
    open({PLACE!r} + "/mine", "w")
    written = True
except OSError:
    written = False
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({{"env": os.environ.get("KEY"), "files": files, "written": written, "ids": [os.getuid(), os.getgid()],
                  "mode": oct(os.stat({PLACE!r}).st_mode), "able": status["CapEff"], "hosts": open("/etc/hosts").read()}}))
sys.stdout.flush()
"""
WAIT = "\nsys.stdin = open('/dev/null')\nimport time\ntime.sleep(600)\n"

needs_namespaces = pytest.mark.skipif(
    subprocess.run([sys.executable, mounts.__file__, PLACE], capture_output=True, check=False).returncode != 0,
    reason="this kernel gives nobody but root a mount namespace",
)


def _script(root: Path, text: str) -> str:
    path = root / "look"
    path.write_text(HEAD + text)
    path.chmod(0o755)
    return str(path)


def _given(value: str) -> dict[str, Any]:
    files = {"key": value.encode(), "group/key": b"\x00" + value.encode()}
    return {"secrets": {"KEY": value}, "private": PrivateFiles(directory=PLACE, files=files)}


def _kept(root: Path, value: str) -> list[Path]:
    """The files below ``root`` that hold ``value``, in clear or as the link carries bytes."""
    return [path for path in root.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]


def _shown(value: str) -> list[str]:
    """The command lines that hold ``value``."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if value in line]


async def _seen(server: Processes, work: str) -> dict[str, Any]:
    assert (await server.exited(work)).exit_code == 0, await server.output(work)
    return dict(json.loads((await server.output(work))[0]))


@needs_namespaces
async def test_it_has_them_as_variable_and_as_files(tmp_path: Path) -> None:
    """Cold and forked alike: read-only, its own alone, with no more rights than before; ``/etc`` is what it was beside that."""
    value = secrets.token_hex(16)
    script = _script(tmp_path, LOOK)
    async with processes(tmp_path) as server:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FSSPEC_FILE_AUTO_MKDIR": "1"}
        await server.launcher.warm_up(PYTHON, env)
        for work, warm in (("cold", False), ("warm", True)):
            await server.launch(work, script, warm=warm, **_given(value))
        cold, warm = await _seen(server, "cold"), await _seen(server, "warm")
        starts = {event.id: event.warm for event in server.events if isinstance(event, Started)}
        kept = [path for path in _kept(tmp_path, value) if path.parent.name != "logs"]
    assert starts == {"cold": False, "warm": True}
    assert cold == warm
    assert cold["env"] == value
    assert cold["files"] == {"key": value.encode().hex(), "group/key": (b"\x00" + value.encode()).hex()}
    assert (cold["written"], cold["mode"], cold["ids"]) == (False, "0o40700", [os.getuid(), os.getgid()])
    assert cold["hosts"] == Path("/etc/hosts").read_text()
    assert not Path(PLACE).exists()
    assert kept == []


@needs_namespaces
async def test_nothing_is_kept_while_it_runs(tmp_path: Path) -> None:
    """Neither on the disk nor in a command line; the process goes on with the next server, which is not told the value."""
    value = secrets.token_hex(16)
    script = _script(tmp_path, LOOK + WAIT)
    first = Processes(tmp_path)
    await first.launcher.start()
    await first.launch("a", script, **_given(value))
    await first.says("a", value)
    await first.launcher.close()
    kept = [path for path in _kept(tmp_path, value) if path.parent.name != "logs"]
    async with processes(tmp_path) as server:
        assert server.launcher.running("a")
        shown = _shown(value)
    assert (kept, shown) == ([], [])


async def test_a_fork_server_is_not_told(tmp_path: Path) -> None:
    """A secret whose name libraries read while they load starts its task plainly, as its environment can't be a server's."""
    value = secrets.token_hex(16)
    script = _script(tmp_path, "import os\nprint(os.environ['SSL_TOKEN'])")
    async with processes(tmp_path) as server:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FSSPEC_FILE_AUTO_MKDIR": "1"}
        await server.launcher.warm_up(PYTHON, env)
        for work in ("a", "b"):
            await server.launch(work, script, warm=True, secrets={"SSL_TOKEN": value})
            await server.exited(work)
        assert await server.output("a") == await server.output("b") == [value]
        assert not any(event.warm for event in server.events if isinstance(event, Started))


@pytest.mark.skipif(os.getuid() != 0, reason="who is no root is tested by the others")
@needs_namespaces
def test_an_ordinary_user_has_them_too() -> None:
    """In a user namespace, as themselves, without the rights that its maker has in it."""
    code = f"""
import os, ctypes
from flyte_unified.launchers.processes import mounts
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which a change of user takes away
mounts.keep_private({PLACE!r}, {{"key": "dg=="}})
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(os.getuid(), os.getgid(), int(status["CapEff"], 16), open({PLACE!r} + "/key").read())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "No space left" in done.stderr:
        pytest.skip("this kernel gives ordinary users no namespaces")
    assert done.stdout.split() == ["65534", "65534", "0", "v"], done.stderr


def test_who_cannot_have_them_is_told_why(tmp_path: Path) -> None:
    """The same file run by path tries it out, and says in one line what failed."""
    (tmp_path / "file").touch()
    command = [sys.executable, "-I", "-S", mounts.__file__, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def _asked(key: str, *, file: bool = False, **fields: str) -> security_pb2.Secret:
    mount = security_pb2.Secret.FILE if file else security_pb2.Secret.ENV_VAR
    return security_pb2.Secret(key=key, mount_requirement=mount, **fields)


async def _reveal(project: str, domain: str, name: str) -> bytes:
    return {"text": b"text", "bytes": b"\xff", "null": b"a\0b", "long": b"x" * 200_000}[name]


ACTION = ActionKey("p", "d", "r", "a0")


@needs_namespaces
async def test_names_are_those_where_sdks_look() -> None:
    """The asked name, else both SDKs'; files by key and by group; a FILE's variable has its path. Nothing for nothing."""
    wanted = [_asked("text", env_var="NAME"), _asked("text", group="my-g"), _asked("text", file=True, group="g", env_var="AT")]
    given = await Secrets(_reveal).given(wanted, ACTION)
    assert given.variables == {
        "FLYTE_SECRETS_ENV_PREFIX": "_FSEC_",
        "FLYTE_SECRETS_DEFAULT_DIR": PLACE,
        "NAME": "text",
        "_UNION_TEXT": "text",
        "_FSEC_MY-G_TEXT": "text",
        "AT": f"{PLACE}/text",
    }
    assert given.private is not None
    assert given.private.files == {"text": b"text", "g/text": b"text"}
    assert "text" not in repr(given.private).replace(PLACE, "")
    assert await Secrets(_reveal).given([], ACTION) == ({}, {})


@pytest.mark.parametrize("name", ["bytes", "null", "long"])
async def test_what_no_variable_can_hold_is_refused(name: str) -> None:
    """Before anything starts, naming the way."""
    with pytest.raises(FailedPrecondition, match=rf"secret '{name}' can be no environment variable.*mount=pathlib"):
        await Secrets(_reveal).given([_asked(name)], ACTION)
    build = _asked(name, env_var=variable(_asked(name)))
    with pytest.raises(FailedPrecondition, match=rf"secret '{name}' can't be given to a layer of an image.*base64") as refused:
        await Secrets(_reveal).given([build], ACTION)
    assert "flyte.Secret" not in refused.value.message, "a task's way is none for a build"


async def test_without_namespaces_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's reason and both ways out; a mended kernel is found out at the next start."""
    looked_up = Secrets(_reveal)
    monkeypatch.setattr(given_secrets, "_TRY", (sys.executable, "-c", "raise SystemExit('unshare: Operation not permitted')"))
    with pytest.raises(FailedPrecondition, match=r"'text'.*unshare: Operation not permitted.*as_env_var.*sysctl"):
        await looked_up.given([_asked("text", file=True)], ACTION)
    monkeypatch.setattr(given_secrets, "_TRY", (sys.executable, "-c", ""))
    assert (await looked_up.given([_asked("text", file=True)], ACTION)).private is not None
