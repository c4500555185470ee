"""What objects say of themselves, what refusals mean, what is kept of a log: the pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_unified.core.clock import Micros
from flyte_unified.core.ids import RunKey
from flyte_unified.core.names import object_name
from flyte_unified.kube.errors import Conflict, Forbidden, Invalid, KubeError, Missing, Throttled
from flyte_unified.kube.kinds import Kind
from flyte_unified.launchers.api import WorkId
from flyte_unified.launchers.kept_logs import Bounded, address
from flyte_unified.launchers.objects import identity, refusals, times
from flyte_unified.launchers.pods.reader import trim
from flyte_unified.ledger.api import Failure
from flyte_unified.plugins.api import Fault

RUN = RunKey("p", "development", "r1")
WORK = WorkId(RUN.action("A_b.c"), 2)
NAME = object_name(WORK.action, WORK.attempt)


def dressed(**metadata: object) -> dict:
    made = {"metadata": metadata, "spec": {}}
    return identity.dressed(made, WORK, name=NAME, namespace="n", owner=None, annotations={"more": "1"})


def test_an_object_tells_its_attempt() -> None:
    """Exactly, whatever its names had to lose; and only under the attempt's own name."""
    pod = dressed(labels={"a": "1"}, annotations={"b": "2"}, finalizers=["example.com/x"])
    assert identity.work_of(pod, limit=63) == WORK
    assert identity.held(pod)
    assert pod["metadata"]["annotations"] == {"b": "2", "more": "1", "flyte.org/work": "p,development,r1,A_b.c,2"}
    pod["metadata"]["name"] = "copy"
    assert identity.work_of(pod, limit=63) is None
    assert identity.work_of({"metadata": {"name": NAME, "annotations": {"flyte.org/work": "p,d"}}}, limit=63) is None


def test_it_is_let_go_of_where_the_finalizer_stands() -> None:
    """Another's before it stays; without ours only the mark is set."""
    pod = dressed(finalizers=["example.com/x"])
    pod["metadata"]["uid"] = "u"
    patch = identity.release(pod)
    assert patch[0] == {"op": "test", "path": "/metadata/uid", "value": "u"}
    assert patch[-1] == {"op": "remove", "path": "/metadata/finalizers/1"}
    pod["metadata"]["finalizers"] = []
    assert [operation["op"] for operation in identity.release(pod)] == ["test", "add"]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (Forbidden("pods is forbidden: exceeded quota: few", status=403), refusals.Full),
        (Forbidden("cannot create resource pods", status=403), refusals.Later),
        (Forbidden("who are you", status=401), refusals.Later),
        (Forbidden("violates PodSecurity", status=403), "Forbidden"),
        (Forbidden("namespace n is being terminated", status=403), "MissingNamespace"),
        (Missing("no namespace", status=404, about={"name": "n"}), "MissingNamespace"),
        (Missing("no kind", status=404), "MissingOperator"),
        (Invalid("bad", status=422), "InvalidResource"),
        (Invalid("large", status=413), "EntityTooLarge"),
        (Throttled("slowly", status=429, retry_after=7.0), refusals.Later),
        (Conflict("a quota changed", status=409), refusals.Later),
        (KubeError("teapot", status=418, reason="Teapot"), "Teapot"),
    ],
)
def test_refusals(error: KubeError, meaning: object) -> None:
    """What passes is tried again, what is wrong is a fault with a code."""
    found = refusals.meaning(error, Kind("ray.io", "v1", "RayJob", "rayjobs"))
    assert (found.code if isinstance(found, Fault) else type(found)) == meaning


def test_an_unknown_operator_is_not_guessed() -> None:
    """The kind is named all the same."""
    fault = refusals.no_kind(Kind("example.com", "v2", "Thing", "things"))
    assert (fault.message, fault.failure) == ("the cluster has no Thing (example.com/v2)", Failure.USER)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=60), st.integers(0, 400))
def test_a_log_keeps_its_first_and_last_lines(lines: list[bytes], limit: int) -> None:
    """In order, and counts what it lost."""
    log = Bounded(limit)
    for line in lines:
        log.add(line)
    kept = log.content().split(b"\n")[:-1]
    if not log.lost:
        assert kept == lines
        return
    notice = next(index for index, line in enumerate(kept) if b"[flyte-unified] " in line)
    head, tail = kept[:notice], kept[notice + 1 :]
    assert head == lines[: len(head)] and tail == lines[len(lines) - len(tail) :] and tail
    assert log.lost == sum(len(line) + 1 for line in lines) - sum(len(line) + 1 for line in head + tail)
    assert sum(len(line) + 1 for line in head + tail[1:]) <= limit


def test_each_attempt_has_an_address() -> None:
    """Below the base, by its whole key."""
    assert address("s3://b/logs/", WORK) == "s3://b/logs/p/development/r1/A_b.c/2.log"


def test_times_as_kubernetes_writes_them() -> None:
    """To the microsecond, in any zone; what is none is none."""
    assert times.parsed("1970-01-01T00:00:01.123456789Z") == Micros(1_123_456)
    assert times.parsed("1970-01-01T02:00:01+02:00") == Micros(1_000_000)
    assert times.parsed(times.rfc3339(Micros(1_700_000_000_000_001))) == Micros(1_700_000_000_000_001)
    assert [times.parsed(text) for text in ("", "12", "1970-01-01", "1970-01-01T00:00:01")] == [None] * 4


def test_a_trimmed_pod_has_what_is_read_of_it() -> None:
    """Of its environment only where secrets come from; managed fields and the like are gone."""
    reference = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    container = {"name": "main", "image": "i", "command": ["x"] * 100, "env": [{"name": "A", "value": "1"}, reference]}
    status = {"name": "main", "state": {"waiting": {"reason": "r"}}, "imageID": "i" * 100}
    pod = {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": {"a": "1"}, "annotations": {"b": "2"}},
        "spec": {"containers": [container], "volumes": [{}]},
        "status": {"phase": "Pending", "containerStatuses": [status], "hostIP": "1"},
    }
    kept = trim(pod)
    assert kept["metadata"] == {"name": "n", "uid": "u", "resourceVersion": "1", "annotations": {}}
    assert kept["spec"] == {"containers": [{"name": "main", "image": "i", "env": [reference]}], "initContainers": []}
    assert kept["status"]["containerStatuses"] == [{"name": "main", "state": {"waiting": {"reason": "r"}}}]
