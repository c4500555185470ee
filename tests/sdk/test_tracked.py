"""Runs on the user's own machine, told to the server by ``flyte run --tracked``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request

from tests.sdk.conftest import PROGRAMS, Client


def tracked(client: Client, run: str, *arguments: str, fails: bool = False) -> str:
    """What the command said; with ``--tracked-strict`` a report that is refused fails it."""
    return client.flyte("run", "--tracked", "--tracked-strict", "--name", run, "tracked.py", *arguments, fails=fails)


def actions(client: Client, run: str) -> list[tuple[str, str, int]]:
    """Task, phase and attempts of each action, as TrackedRunService lists them."""
    body = {"runId": {"project": client.project, "domain": "development", "name": run}}
    request = urllib.request.Request(
        f"{client.backend.address}/flyteidl2.workflow.TrackedRunService/ListActions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        found = [(each["metadata"], each["status"]) for each in json.load(response)["actions"]]
    return sorted((m["funtionName"], s["phase"].removeprefix("ACTION_PHASE_"), s["attempts"]) for m, s in found)


def page(client: Client, path: str) -> str:
    with urllib.request.urlopen(f"{client.backend.address}{path}") as response:
        text: str = response.read().decode()
    return text


def test_a_run_is_shown(client: Client) -> None:
    """With its nested actions, a trace, the attempts of a retried task, inputs, outputs and report, by its printed address."""
    said = client.flyte("run", "--tracked", "--tracked-strict", "tracked.py", "main", "--name", "Ada")
    assert "ADA: 105" in said
    found = re.search(r"tracked-runs/(local-\w+)", said)
    assert found, said
    run = found[1]
    assert actions(client, run) == [
        ("note", "SUCCEEDED", 1),
        ("tracked.main", "SUCCEEDED", 1),
        ("tracked.shaky", "SUCCEEDED", 2),
        *[("tracked.square", "SUCCEEDED", 1)] * 4,
    ]
    io = client.flyte("get", "io", run)
    assert "{'n': 3, 'name': 'Ada'}" in io
    assert 'ActionOutputs(o0="ADA: 105")' in io
    assert run not in client.flyte("get", "run")
    home = f"/v2/domain/development/project/{client.project}"
    shown = page(client, f"{home}/tracked-runs/{run}")
    assert "its client carries it out" in shown
    assert "square" in shown
    assert "<p>Ada has 3</p>" in page(client, f"{home}/runs/{run}/actions/a0/attempts/1/report")
    assert "its client carries it out, and has its log" in page(client, f"{home}/runs/{run}/actions/a0/attempts/1/log")


def test_a_failure_is_shown(client: Client) -> None:
    """With its words, where it happened and above."""
    run = "local-broken"
    tracked(client, run, "broken", fails=True)
    assert actions(client, run) == [("tracked.breaks", "FAILED", 1), ("tracked.broken", "FAILED", 1)]
    assert "no use for 7" in client.flyte("get", "action", run, "a0")


def test_an_interrupted_run_is_aborted(client: Client) -> None:
    """Ctrl-C is told to the server, if the SDK gets to it: its command line may be gone first. What nobody tells of is left
    to ``tracked.silence``.
    """
    run = "local-stopped"
    command = [sys.executable, "tracked.py", run]
    with subprocess.Popen(
        command,
        cwd=PROGRAMS,
        env={**client.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        assert program.stdout is not None
        said = []
        for line in program.stdout:
            said.append(line)
            if "it runs" in line:
                program.send_signal(signal.SIGINT)
        program.wait(30)
    assert actions(client, run) == [("tracked.endless", "ABORTED", 1)], "".join(said)
    assert "aborted by user (SIGINT)" in client.flyte("get", "action", run, "a0")
