"""Every verb of the SDK's command line: the tests that type it, and here those that no other test types."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import yaml

from tests.sdk.conftest import Client, Said

TESTS = Path(__file__).parent
_HERE = "programs/verbs.py"
TYPED = {
    "abort action": "test_cli.py",
    "abort run": "test_cli.py",
    "build": _HERE,
    "create artifact": "test_artifacts.py",
    "create config": _HERE,
    "create project": "test_cli.py",
    "create secret": "test_secrets.py",
    "create trigger": "test_triggers.py",
    "delete app": "test_apps_sdk.py",
    "delete devbox": "test_devbox.py",
    "delete local-cache": "test_code.py",
    "delete secret": "test_secrets.py",
    "delete trigger": "test_triggers.py",
    "deploy": "test_cli.py",
    "edit settings": "test_settings.py",
    "gen docs": _HERE,
    "get action": "test_cli.py",
    "get app": "test_apps_sdk.py",
    "get artifact": "test_artifacts.py",
    "get code": _HERE,
    "get condition": "test_waiting.py",
    "get config": _HERE,
    "get devbox": "test_devbox.py",
    "get io": "test_cli.py",
    "get logs": "test_cli.py",
    "get project": "test_cli.py",
    "get run": "test_cli.py",
    "get secret": "test_secrets.py",
    "get settings": "test_settings.py",
    "get task": "test_cli.py",
    "get trigger": "test_triggers.py",
    "prefetch hf-model": "test_prefetch.py",
    "proxy app": "test_apps_sdk.py",
    "rerun": _HERE,
    "run": "test_cli.py",
    "run deployed-task": "test_cli.py",
    "run hello": _HERE,
    "run python-script": _HERE,
    "serve": "test_apps_sdk.py",
    "serve hello": "test_hello_app.py",
    "signal condition": "test_waiting.py",
    "start devbox": "test_devbox.py",
    "start tui": "test_every_verb.py",
    "stop devbox": "test_devbox.py",
    "update app": "test_apps_sdk.py",
    "update project": "test_cli.py",
    "update trigger": "test_triggers.py",
    "whoami": "test_cli.py",
}
"""Verbs by the file that types them."""


@pytest.fixture(scope="module")
def said(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What came of each verb of the program, by the verb; ``run`` is the run that they speak of."""
    return client.say("verbs", str(tmp_path_factory.mktemp("verbs")))


def of(said: dict[str, Said], *words: str) -> Said:
    """What came of the verb that was typed with these words."""
    (found,) = (facts for typed, facts in said.items() if all(f" {word} " in f" {typed} " for word in words) and " " in typed)
    assert found["raised"] == "", found
    return found


def test_every_verb_is_typed_by_a_test(client: Client) -> None:
    """All that the command line has is named above, and the file that is named types it."""
    verbs = client.say("verbs", "tree")["tree"]["verbs"]
    assert set(verbs) == set(TYPED)
    for verb, file in TYPED.items():
        typed = r",\s*(\"--?[\w-]+\",\s*)*".join(f'"{word}"' for word in verb.split())
        assert re.search(typed, (TESTS / file).read_text()), f"{file} does not type {verb}"


def test_the_code_of_a_run(said: dict[str, Said]) -> None:
    """Comes back as it was."""
    found = of(said, "get", "code")
    assert found["code"] == 0, found["output"]
    directory = next(word for word in found["case"].split() if word.endswith("/code"))
    copied = next(Path(directory).rglob("hello.py"))
    assert copied.read_text() == (TESTS / "programs" / "hello.py").read_text()


def test_build(said: dict[str, Said]) -> None:
    """An image without layers is there."""
    found = of(said, "build", "env")
    assert found["code"] == 0, found["output"]
    assert "Built image for environment hello" in found["output"]


def test_rerun(said: dict[str, Said]) -> None:
    """Another run begins; it is told by its name."""
    run = said["run"]["name"]
    found = said[f"rerun {run}"]
    assert found["code"] == 0
    assert re.search(r"Created Run: r\w+", found["output"])
    assert run in found["output"]


def test_a_rerun_with_another_input(said: dict[str, Said]) -> None:
    """What is not said anew is as it was."""
    assert of(said, "rerun", "--n")["code"] == 0
    assert "you: 5" in of(said, "get", "io")["output"]


def test_the_sdk_s_own_example(said: dict[str, Said]) -> None:
    """``flyte run hello`` ends well, its log told to the end."""
    found = of(said, "run", "--follow", "hello")
    assert found["code"] == 0
    assert "Flyte runtime completed for action a0" in found["output"]


def test_a_script(said: dict[str, Said], client: Client) -> None:
    """Runs with its arguments. (The SDK itself tells a script that ended well as one that failed: it looks for a dict.)"""
    found = of(said, "python-script")
    name = re.search(r"Started run (\w+)", found["output"])
    assert name, found["output"]
    assert "completed successfully" in found["output"]
    assert "script says ['a', 'b']" in client.flyte("get", "logs", name[1])


def test_debug_mode_is_refused(said: dict[str, Said], client: Client) -> None:
    """The client waits for no editor, and the run says why there is none."""
    found = of(said, "--debug")
    assert "VS Code Debugger URL was not found" in found["output"]
    name = re.search(r"Created Run: (\w+)", found["output"])
    assert name
    assert "flyte run --local" in client.flyte("get", "logs", name[1])


def test_configurations(said: dict[str, Said], client: Client) -> None:
    """What the SDK writes leads where it says; of images, both have Docker build them, which `flyte-unified doctor` tells."""
    assert client.backend.endpoint in of(said, "get", "config")["output"]
    for words, endpoint in ((("--endpoint",), "dns:///localhost:7"), (("--devbox",), "dns:///localhost:30080")):
        case = of(said, "create", *words)["case"]
        written = yaml.safe_load(Path(case.split()[-1]).read_text())
        assert written["admin"] == {"endpoint": endpoint, "insecure": True}
        assert written["image"]["builder"] == "local"


def test_documentation(said: dict[str, Said]) -> None:
    """Needs no server, and meets none."""
    assert "Display the current user information" in of(said, "gen", "docs")["output"]


def test_the_console_in_a_terminal(client: Client) -> None:
    """``flyte start tui`` shows the server's projects and ends when it is asked to."""
    pytest.importorskip("textual")
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    command = [Path(sys.executable).with_name("flyte"), *("start", "tui")]
    process = subprocess.Popen(command, env=client.environment | {"TERM": "xterm-256color"}, stdin=end, stdout=end, stderr=end)
    os.close(end)
    try:
        assert shows(terminal, client.project), "the project does not appear"
        os.write(terminal, b"q")
        shows(terminal, "nothing that it could show")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def shows(terminal: int, text: str) -> bool:
    """Reads until ``text`` has appeared; False when the program has ended before."""
    screen, until = "", time.monotonic() + 60
    while time.monotonic() < until and select.select([terminal], [], [], 60)[0]:
        try:
            screen += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # EIO: nobody has the other end
            return False
        if text in screen:
            return True
    return False
