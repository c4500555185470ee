"""Apps: programs that serve, as processes of this machine, each under a host of its own."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from flyteidl2.app import app_definition_pb2 as idl
from flyteidl2.app import app_logs_payload_pb2 as logs
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.app import replica_definition_pb2
from flyteidl2.app.app_logs_service_connect import AppLogsServiceClientSync
from flyteidl2.app.app_service_connect import AppServiceClientSync
from flyteidl2.secret import payload_pb2 as secret_payload
from flyteidl2.secret.secret_connect import SecretServiceClientSync

from flyte_unified.testing import Backend

PROJECT, DOMAIN = "flytesnacks", "development"
ACTIVE, FAILED, STOPPED, DEPLOYING = (
    idl.Status.DEPLOYMENT_STATUS_ACTIVE,
    idl.Status.DEPLOYMENT_STATUS_FAILED,
    idl.Status.DEPLOYMENT_STATUS_STOPPED,
    idl.Status.DEPLOYMENT_STATUS_DEPLOYING,
)
SECONDS = 60.0
SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path)
        if self.path == "/crash":
            os._exit(7)
        body = f"{os.getpid()} {os.environ.get('WORD', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("begins")
http.server.ThreadingHTTPServer(("127.0.0.1", %s), Handler).serve_forever()
"""
ARGUMENT, VARIABLE = SERVER % "int(sys.argv[1])", SERVER % "int(os.environ['PORT'])"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def app(name: str, code: str = ARGUMENT, *, port: int = 0, least: int = 0, idle: float = 600, **variables: str) -> idl.App:
    """Plain Python, without the SDK: it is there in a moment."""
    port = port or free_port()
    asked = idl.App(metadata=idl.Meta(id=idl.Identifier(project=PROJECT, domain=DOMAIN, name=name)))
    asked.spec.container.command.extend(["python", "-c", code])
    asked.spec.container.args.append(str(port))
    asked.spec.container.ports.add(container_port=port)
    for variable, value in variables.items():
        asked.spec.container.env.add(key=variable, value=value)
    asked.spec.autoscaling.replicas.min, asked.spec.autoscaling.replicas.max = least, 1
    asked.spec.autoscaling.scaledown_period.FromNanoseconds(int(idle * 1e9))
    asked.spec.desired_state = idl.Spec.DESIRED_STATE_ACTIVE
    return asked


class Stage:
    """The clients of a server's apps."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.apps = AppServiceClientSync(address)
        self.logs = AppLogsServiceClientSync(address)

    def create(self, asked: idl.App) -> idl.App:
        return self.apps.create(payload.CreateRequest(app=asked)).app

    def update(self, asked: idl.App, reason: str = "") -> idl.App:
        return self.apps.update(payload.UpdateRequest(app=asked, reason=reason)).app

    def get(self, name: str) -> idl.App:
        return self.apps.get(payload.GetRequest(app_id=self.id(name))).app

    def delete(self, name: str) -> None:
        self.apps.delete(payload.DeleteRequest(app_id=self.id(name)))

    def until(self, name: str, phase: int, substate: int | None = None) -> idl.App:
        """The app when it is so."""
        request = payload.WatchRequest(app_id=self.id(name))
        for event in self.apps.watch(request, timeout_ms=int(SECONDS * 1000)):
            found = event.update_event.updated_app
            last = found.status.conditions[-1]
            if last.deployment_status == phase and substate in (None, last.substate):
                return found
        raise AssertionError(f"{name} is not {phase}")

    def running(self, name: str, times: int = 1) -> idl.App:
        """The app when it runs, for the ``times``-th time."""
        request = payload.WatchRequest(app_id=self.id(name))
        for event in self.apps.watch(request, timeout_ms=int(SECONDS * 1000)):
            found = event.update_event.updated_app
            states = [condition.substate for condition in found.status.conditions]
            if states[-1] == idl.Status.RUNNING and states.count(idl.Status.RUNNING) >= times:
                return found
        raise AssertionError(f"{name} does not run")

    def ask(self, name: str, path: str = "/") -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=SECONDS)
        try:
            connection.request("GET", path, headers={"Host": f"{name}.localhost"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def pid(self, name: str) -> int:
        status, text = self.ask(name)
        assert status == 200, text
        return int(text.split()[0])

    def replicas(self, name: str) -> list[str]:
        """Those whose logs are there, of one that does not run."""
        tail = self.logs.tail_logs(logs.TailLogsRequest(app_id=self.id(name)), timeout_ms=int(SECONDS * 1000))
        return [replica.name for response in tail for replica in response.replicas.replicas]

    def log(self, name: str, until: str | None = None, *, replica: str = "") -> list[str]:
        """Its lines, up to the one that is ``until``; else all of one that does not run."""
        said: list[str] = []
        request = logs.TailLogsRequest(app_id=self.id(name))
        if replica:
            request.replica_id.CopyFrom(replica_definition_pb2.ReplicaIdentifier(app_id=self.id(name), name=replica))
        for response in self.logs.tail_logs(request, timeout_ms=int(SECONDS * 1000)):
            for batch in response.batches.logs:
                for line in batch.structured_lines:
                    said.append(line.message.rstrip())
                    if said[-1] == until:
                        return said
        return said

    @staticmethod
    def id(name: str) -> idl.Identifier:
        return idl.Identifier(project=PROJECT, domain=DOMAIN, name=name)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend({"execution.kill_grace": 0.5, "apps.backoff": 0.05}) as backend:
        yield backend


@pytest.fixture(scope="module")
def stage(backend: Backend) -> Stage:
    return Stage(backend.address)


def test_an_app_sleeps_and_is_woken(stage: Stage) -> None:
    """Without a visitor it has no process; the next request waits for one. Its log has both."""
    stage.create(app("sleeper", idle=0.05))
    asleep = stage.until("sleeper", ACTIVE, idl.Status.SCALED_TO_ZERO)
    assert asleep.status.current_replicas == 0
    assert stage.log("sleeper") == ["begins"]
    status, _ = stage.ask("sleeper", "/wake")
    assert status == 200
    assert stage.log("sleeper", "asked for /wake").count("begins") == 2
    conditions = [
        condition.substate for condition in stage.until("sleeper", ACTIVE, idl.Status.SCALED_TO_ZERO).status.conditions
    ]
    assert conditions.count(idl.Status.SCALING_FROM_ZERO) == 1
    stage.delete("sleeper")


def test_one_that_lasts_does_not_sleep(stage: Stage) -> None:
    """At least one replica is one at all times, however short its patience."""
    stage.create(app("lasting", least=1, idle=0.001))
    first = stage.running("lasting")
    pid = stage.pid("lasting")
    stage.create(app("marker", idle=0.1))
    stage.until("marker", ACTIVE, idl.Status.SCALED_TO_ZERO)
    assert stage.pid("lasting") == pid
    assert stage.get("lasting").status.conditions == first.status.conditions


def test_two_apps_that_want_one_port_both_run(stage: Stage) -> None:
    """The second is told of another: in its arguments, and in its environment."""
    port = free_port()
    names = {"first": ARGUMENT, "second": ARGUMENT, "third": VARIABLE}
    for name, code in names.items():
        stage.create(app(name, code, port=port))
        stage.running(name)
    assert len({stage.pid(name) for name in names}) == 3


def test_a_port_that_can_not_be_had_is_told(stage: Stage) -> None:
    """An app that has it in its own code fails, and says whose it is and what there is to do; it runs when the port is free."""
    port = free_port()
    stage.create(app("owner", port=port, least=1))
    stage.running("owner")
    stage.create(app("stubborn", SERVER % port, port=port))
    failed = stage.until("stubborn", FAILED)
    assert failed.status.conditions[-1].substate == idl.Status.CRASH_LOOP
    for words in ("Address already in use", f"port {port} belongs to app {PROJECT}/{DOMAIN}/owner", "env.get_port()"):
        assert words in failed.status.conditions[-1].message
    status, text = stage.ask("stubborn")
    assert (status, f"port {port} belongs to" in text) == (503, True)
    stage.delete("owner")
    stage.running("stubborn")


def test_one_that_crashes_is_started_again(stage: Stage) -> None:
    """Its end is told with the exit code, and to whoever it was asked by."""
    stage.create(app("fragile"))
    before = stage.pid("fragile")
    assert stage.ask("fragile", "/crash")[0] == 503
    messages = [condition.message for condition in stage.running("fragile", times=2).status.conditions]
    assert stage.pid("fragile") != before
    assert any("exit code 7" in message for message in messages)


def test_one_that_can_not_start_fails(stage: Stage) -> None:
    """With its last words; it is refused with a sentence what can't run here at all."""
    stage.create(app("broken", "raise SystemExit('no model found')"))
    assert "exit code 1: no model found" in stage.until("broken", FAILED).status.conditions[-1].message
    image = app("image")
    image.spec.container.ClearField("command")
    image.spec.container.ClearField("args")
    stage.create(image)
    assert "runs the program of its container image" in stage.until("image", FAILED).status.conditions[-1].message
    gone = app("imaged")
    gone.spec.container.image = "local/gone:1"
    stage.create(gone)
    assert "the image local/gone:1 is not on this machine" in stage.until("imaged", FAILED).status.conditions[-1].message
    missing = app("secretive")
    missing.spec.security_context.secrets.add(key="nobody-has-it")
    stage.create(missing)
    assert "nobody-has-it" in stage.until("secretive", FAILED).status.conditions[-1].message


def test_an_app_has_its_secrets(stage: Stage) -> None:
    """As the variable that it asks for, and in nothing that is shown."""
    secret = secret_payload.CreateSecretRequest(id={"name": "word", "project": PROJECT, "domain": DOMAIN})
    secret.secret_spec.string_value = "xyzzy"
    SecretServiceClientSync(stage.address).create_secret(secret)
    asked = app("knowing")
    asked.spec.security_context.secrets.add(key="word", env_var="WORD")
    stage.create(asked)
    assert stage.ask("knowing")[1].endswith(" xyzzy")
    assert "xyzzy" not in str(stage.get("knowing"))


def test_its_page_leads_to_it(stage: Stage) -> None:
    """The address that ``flyte serve`` prints."""
    stage.create(app("shown"))
    connection = http.client.HTTPConnection(stage.address.removeprefix("http://"), timeout=SECONDS)
    connection.request("GET", f"/v2/domain/{DOMAIN}/project/{PROJECT}/apps/shown")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["location"]) == (302, stage.get("shown").status.ingress.public_url)
    connection.close()


def test_an_update_loses_no_request(stage: Stage) -> None:
    """Requests are answered throughout, by the old one or by the new one."""
    stage.create(app("changing", least=1, WORD="old"))
    stage.running("changing")
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            status, text = stage.ask("changing")
            answers.append((status, text.partition(" ")[2]))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        changed = stage.get("changing")
        changed.spec.container.env[0].value = "new"
        assert stage.update(changed, "a better word").metadata.revision == 2
        stage.running("changing")
        assert stage.ask("changing")[1].endswith(" new")
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert {status for status, _ in answers} == {200}
    assert {word for _, word in answers} == {"old", "new"}


def test_what_is_no_change_of_the_program_restarts_nothing(stage: Stage) -> None:
    """Labels and scaling are changed beside it; a revision that is not the present one is refused."""
    stage.create(app("steady"))
    stage.running("steady")
    pid = stage.pid("steady")
    changed = stage.get("steady")
    changed.spec.autoscaling.replicas.max = 3
    changed.metadata.labels["team"] = "red"
    assert stage.update(changed).metadata.revision == 2
    assert stage.update(changed).metadata.revision == 2  # the same again: the client did not hear of the first
    assert stage.pid("steady") == pid
    changed.spec.autoscaling.replicas.max = 4
    with pytest.raises(ConnectError, match="1 was read, and 2 is the present one") as caught:
        stage.update(changed)
    assert caught.value.code == Code.ABORTED


def test_a_stopped_app_says_so_and_can_be_started(stage: Stage) -> None:
    """All that it started is gone, and comes back with the next start."""
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n" + ARGUMENT
    stage.create(app("parent", code))
    stage.running("parent")
    family = psutil.Process(stage.pid("parent"))
    (child,) = family.children()
    known = stage.get("parent")
    known.spec.desired_state = idl.Spec.DESIRED_STATE_STOPPED
    known = stage.update(known)
    stage.until("parent", STOPPED)
    assert not child.is_running()
    (replica,) = stage.replicas("parent")
    assert stage.log("parent", replica=replica) == stage.log("parent")
    assert stage.log("parent")[:2] == ["begins", "asked for /"]
    with pytest.raises(ConnectError, match="no replica 'other'"):
        stage.log("parent", replica="other")
    status, text = stage.ask("parent")
    assert (status, "`flyte update app parent --activate` starts it" in text) == (503, True)
    known.spec.desired_state = idl.Spec.DESIRED_STATE_STARTED
    stage.update(known)
    stage.running("parent")
    assert stage.pid("parent") != family.pid


def test_a_deleted_app_leaves_nothing(stage: Stage, backend: Backend) -> None:
    """Its process, its host and its log; one of the same name begins anew, under the same host."""
    stage.create(app("brief"))
    stage.running("brief")
    process = psutil.Process(stage.pid("brief"))
    stage.delete("brief")
    process.wait(SECONDS)
    assert stage.ask("brief")[0] == 404
    with pytest.raises(ConnectError) as caught:
        stage.get("brief")
    assert caught.value.code == Code.NOT_FOUND
    stage.create(app("brief"))
    assert stage.running("brief").metadata.revision == 1
    assert stage.log("brief", "begins") == ["begins"]


def test_creation_is_idempotent(stage: Stage) -> None:
    """The same again is the same app; another one of that name exists already."""
    asked = app("twice")
    first = stage.create(asked)
    assert stage.create(asked).metadata == first.metadata
    asked.spec.container.env.add(key="A", value="b")
    with pytest.raises(ConnectError) as caught:
        stage.create(asked)
    assert caught.value.code == Code.ALREADY_EXISTS


def test_apps_of_one_name_have_hosts_of_their_own(stage: Stage, backend: Backend) -> None:
    """The first has the short one; each has the long one; an address leads to its app."""
    backend.create_project("neighbours")
    other = app("namesake")
    other.metadata.id.project = "neighbours"
    urls = [stage.create(each).status.ingress.public_url for each in (app("namesake"), other)]
    port = backend.address.rpartition(":")[2]
    assert urls == [f"http://namesake.localhost:{port}", f"http://namesake.neighbours.development.localhost:{port}"]
    stage.running("namesake")
    mine = stage.pid("namesake")
    assert stage.pid(f"namesake.{PROJECT}.{DOMAIN}") == mine
    assert stage.pid("namesake.neighbours.development") != mine
    found = stage.apps.get(payload.GetRequest(ingress=idl.Ingress(public_url=urls[1]))).app
    assert found.metadata.id.project == "neighbours"
