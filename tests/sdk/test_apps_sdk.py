"""Apps as users of the SDK make them, and as its command line does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.sdk.conftest import PROGRAMS, Client


def test_apps_of_the_sdk(newcomer: Client) -> None:
    """Served with what they depend on; an app and a task ask another app; logs, lists, stop, start and delete."""
    said = newcomer.say("apps")
    assert (said["served"]["revision"], said["served"]["active"]) == (1, True)
    assert said["served again"]["revision"] == 1
    assert said["asked"]["text"] == "good day, good day from hello from middle"
    assert said["task"]["text"] == "good day, good day from hello"
    assert any(line.endswith("asked for /middle") for line in said["log"]["lines"])
    assert said["listed"]["active"] == ["hello", "middle"]
    assert said["stopped"]["names"] == ["hello"]
    assert (said["started"]["active"], said["started"]["after"]) == (True, 2)
    assert said["deleted"]["left"] == ["hello"]


def test_apps_of_the_command_line(newcomer: Client) -> None:
    """``flyte serve``, ``get``, ``proxy``, ``update`` and ``delete``."""
    assert "App 'hello' is now being served" in newcomer.flyte("serve", "apps.py", "hello")
    assert "'publicUrl': 'http://hello" in newcomer.flyte("get", "app", "hello")
    url = f"{newcomer.backend.address}/_apps/{newcomer.project}/development/hello"
    assert proxied(newcomer, url) == "good day, good day from hello"
    newcomer.flyte("update", "app", "hello", "--deactivate", "--wait")
    assert "STOPPED" in newcomer.flyte("get", "app", "--status", "stopped")
    newcomer.flyte("delete", "app", "hello")
    assert "there is no app" in newcomer.flyte("get", "app", "hello", fails=True)


def proxied(client: Client, url: str) -> str:
    """What is said through ``flyte proxy app``, which wants to know how to sign in, though nobody has to."""
    path = client.home / "proxy.yaml"
    admin = {"endpoint": f"dns:///{client.backend.endpoint}", "insecure": True, "authType": "Passthrough"}
    path.write_text(json.dumps({"admin": admin}))
    command = [str(Path(sys.executable).parent / "flyte"), "--config", str(path), "proxy", "app", "--url", url, "--port", "0"]
    environment = {**client.environment, "FLYTECTL_CONFIG": str(path)}
    with subprocess.Popen(command, cwd=PROGRAMS, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while (found := re.search(r"-> +(http://\S+)", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        try:
            with urllib.request.urlopen(found[1]) as response:
                return str(response.read().decode())
        finally:
            process.send_signal(signal.SIGINT)


def test_a_connector_that_is_an_app_runs_tasks_of_its_types(newcomer: Client, tmp_path: Path) -> None:
    """Without a word in the settings; what its domain's tasks ask of it passes through the server's port."""
    said = newcomer.say("connector_app", str(tmp_path))
    assert said["served"]["active"]
    assert (said["ran"]["phase"], said["ran"]["outputs"]) == ("SUCCEEDED", [42])
