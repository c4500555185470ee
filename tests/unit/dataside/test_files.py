"""Inputs as files and files as outputs, with a directory for a store."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from flyteidl2.core import execution_pb2, interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from google.protobuf import json_format

from flyte_unified.core.errors import InvalidArgument, NotFound
from flyte_unified.core.literals import plain
from flyte_unified.dataside import inputs, outputs
from flyte_unified.storage.transfer import Transfer

SINGLE, MULTIPART = types_pb2.BlobType.SINGLE, types_pb2.BlobType.MULTIPART
INTEGER = {"simple": "INTEGER"}
FILE = {"blob": {"format": "csv"}}
DIRECTORY = {"blob": {"dimensionality": "MULTIPART"}}


def literal(value: Any) -> literals_pb2.Literal:
    return json_format.ParseDict(value, literals_pb2.Literal())


def integer(value: int) -> dict[str, Any]:
    return {"scalar": {"primitive": {"integer": str(value)}}}


def blob(path: Path, dimensionality: str = "SINGLE") -> dict[str, Any]:
    return {"scalar": {"blob": {"uri": str(path), "metadata": {"type": {"dimensionality": dimensionality}}}}}


class Place:
    """A store, and a container's directories."""

    def __init__(self, root: Path) -> None:
        self.store, self.work = root / "store", root / "work"
        self.store.mkdir()
        self.work.mkdir()
        self.transfer = Transfer({})

    def file(self, name: str, content: str) -> Path:
        path = self.store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def left(self, name: str, content: str) -> Path:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def given(self, **values: Any) -> str:
        """The address of inputs."""
        named = [common_pb2.NamedLiteral(name=name, value=literal(value)) for name, value in values.items()]
        path = self.store / "inputs.pb"
        path.write_bytes(common_pb2.Inputs(literals=named).SerializeToString())
        return str(path)

    async def download(self, uri: str, *, form: str = "JSON", layout: str = "DIRECT") -> None:
        await inputs.download(self.transfer, uri, self.work, form=form, layout=layout)

    async def upload(self, **types: Any) -> dict[str, Any] | str:
        """The outputs by name as JSON has them, or the error that was told."""
        variables = json_format.ParseDict(
            {"variables": [{"key": name, "value": {"type": kind}} for name, kind in types.items()]}, interface_pb2.VariableMap()
        )
        to = str(self.store / "attempt")
        said = await outputs.upload(self.transfer, self.work, to=to, raw=str(self.store / "raw"), outputs=variables.variables)
        error = self.store / "attempt" / "error.pb"
        if error.exists():
            document = execution_pb2.ErrorDocument.FromString(error.read_bytes())
            assert document.error.message == said
            assert (document.error.origin, document.error.kind) == (
                execution_pb2.ExecutionError.USER,
                document.error.RECOVERABLE,
            )
            return f"{document.error.code}: {said}"
        assert said == ""
        stored = common_pb2.Outputs.FromString((self.store / "attempt" / "outputs.pb").read_bytes())
        return {entry.name: plain(entry.value) for entry in stored.literals}

    def read(self, name: str) -> str:
        return (self.work / name).read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_values_become_files(place: Place):
    """Each its own, and all in a summary and as a LiteralMap."""
    await place.download(place.given(x=integer(7), name={"scalar": {"primitive": {"stringValue": "a\nb"}}}))
    assert (place.read("x"), place.read("name")) == ("7", "a\nb")
    assert json.loads(place.read("inputs.json")) == {"x": 7, "name": "a\nb"}
    assert literals_pb2.LiteralMap.FromString((place.work / "inputs.pb").read_bytes()).literals["x"] == literal(integer(7))


@pytest.mark.parametrize(("form", "names"), [("YAML", {"inputs.yaml", "inputs.pb", "x"}), ("PROTO", {"inputs.pb", "x"})])
async def test_summaries_in_other_formats(place: Place, form: str, names: set[str]):
    """As the task asked."""
    await place.download(place.given(x=integer(7)), form=form)
    assert {path.name for path in place.work.iterdir()} == names
    if form == "YAML":
        assert yaml.safe_load(place.read("inputs.yaml")) == {"x": 7}


async def test_files_directories_and_lists(place: Place):
    """Where they lie now is in the summary, not where they came from."""
    a, b = place.file("in/a.csv", "1,2"), place.file("in/b.csv", "3")
    place.file("tree/one", "I")
    place.file("tree/sub/two", "II")
    uri = place.given(
        table=blob(a),
        tree=blob(place.store / "tree", "MULTIPART"),
        many={"collection": {"literals": [blob(a), blob(b)]}},
        by={"map": {"literals": {"k": integer(1)}}},
        maybe={"scalar": {"union": {"value": blob(b)}}},
        frame={"scalar": {"structuredDataset": {"uri": str(place.store / "tree")}}},
    )
    await place.download(uri)
    assert (place.read("table"), place.read("maybe")) == ("1,2", "3")
    assert (place.read("tree/one"), place.read("tree/sub/two"), place.read("frame/one")) == ("I", "II", "I")
    assert (place.read("many/0"), place.read("many/1"), place.read("by/k")) == ("1,2", "3", "1")
    told = json.loads(place.read("inputs.json"))
    assert told["table"] == str(place.work / "table")
    assert told["many"] == [str(place.work / "many/0"), str(place.work / "many/1")]
    assert told["frame"] == str(place.work / "frame")


async def test_files_under_their_own_names(place: Place):
    """For programs that look at the extension; two of one name are told apart."""
    one, other = place.file("a/x.csv", "1"), place.file("b/x.csv", "2")
    uri = place.given(single=blob(one), many={"collection": {"literals": [blob(one), blob(other), integer(3)]}})
    await place.download(uri, layout="NAMED_DIR")
    assert place.read("single/x.csv") == "1"
    assert [place.read(f"many/{name}") for name in ("x.csv", "1_x.csv", "2")] == ["1", "2", "3"]


async def test_large_values_are_fetched_from_where_they_lie(place: Place):
    """A literal that is an address of its own content."""
    (place.store / "large").write_bytes(literal(integer(9)).SerializeToString())
    await place.download(place.given(x={"offloadedMetadata": {"uri": str(place.store / "large")}}))
    assert place.read("x") == "9"


async def test_inputs_stay_in_their_directory(place: Place):
    """A key of a map may be any text."""
    with pytest.raises(InvalidArgument, match="a key in x"):
        await place.download(place.given(x={"map": {"literals": {"../../out": integer(1)}}}))


async def test_inputs_that_are_not_there(place: Place):
    """Named by their address."""
    with pytest.raises(NotFound, match=r"nothing\.pb"):
        await place.download(str(place.store / "nothing.pb"))
    with pytest.raises(NotFound, match=r"gone\.csv"):
        await place.download(place.given(x=blob(place.store / "gone.csv")))


async def test_files_become_outputs(place: Place):
    """By the types of the interface: values, files, directories, lists, maps; an extension doesn't matter."""
    place.left("n", "5\n")
    place.left("report.csv", "a,b")
    place.left("tree/sub/one", "I")
    for index in (10, 9, 2):
        place.left(f"many/{index}.txt", str(index))
    place.left("by/k", "1")
    place.left("either", "word")
    raw = place.store / "raw"
    found = await place.upload(
        n=INTEGER,
        report=FILE,
        tree=DIRECTORY,
        many={"collectionType": FILE},
        by={"mapValueType": INTEGER},
        maybe={"unionType": {"variants": [INTEGER, {"simple": "NONE"}]}},
        either={"unionType": {"variants": [INTEGER, {"simple": "STRING"}]}},
    )
    assert found == {
        "n": 5,
        "report": str(raw / "report"),
        "tree": str(raw / "tree"),
        "many": [str(raw / "many/2.txt"), str(raw / "many/9.txt"), str(raw / "many/10.txt")],
        "by": {"k": 1},
        "maybe": None,
        "either": "word",
    }
    assert (raw / "report").read_text() == "a,b"
    assert (raw / "tree/sub/one").read_text() == "I"
    assert (raw / "many/9.txt").read_text() == "9"


async def test_a_task_without_outputs_leaves_the_file_too(place: Place):
    """It is how the manager knows that all went well."""
    assert await place.upload() == {}


@pytest.mark.parametrize(
    ("name", "content", "kind", "told"),
    [
        ("other", "5", INTEGER, "OutputUnreadable: output y: the container left no"),
        ("y", "five", INTEGER, "OutputUnreadable: output y: 'five' is no integer"),
        ("y/inner", "5", FILE, "is a directory, which its type is not"),
        ("y", "5", DIRECTORY, "is a file, which its type is not"),
        ("y", "5", {"collectionType": INTEGER}, "OutputUnreadable: output y: the container left no"),
        ("y/0", "x", {"collectionType": INTEGER}, "output y/0: 'x' is no integer"),
        ("y", "5" * (1 << 20) + "5", {"simple": "STRING"}, "a value at most 1048576; make it a file"),
        ("y", "x", {"unionType": {"variants": [INTEGER, {"simple": "BOOLEAN"}]}}, "is no integer"),
        ("_ERROR", "no such column\n", INTEGER, "ContainerError: no such column"),
        ("_ERROR", "", INTEGER, "ContainerError: the container says that it failed"),
    ],
)
async def test_what_can_not_be_read_is_the_task_s_error(place: Place, name: str, content: str, kind: Any, told: str):
    """Told where the manager looks first, and named."""
    place.left(name, content)
    said = await place.upload(y=kind)
    assert isinstance(said, str)
    assert told in said


async def test_bytes_that_are_no_text(place: Place):
    """The same."""
    (place.work / "y").write_bytes(b"\xff\xfe")
    assert "is no text in UTF-8" in str(await place.upload(y={"simple": "STRING"}))


async def test_what_the_task_stored_itself_stays(place: Place):
    """Its own outputs.pb or error.pb."""
    own = common_pb2.Outputs(literals=[common_pb2.NamedLiteral(name="y", value=literal(integer(1)))]).SerializeToString()
    (place.store / "attempt").mkdir()
    (place.store / "attempt" / "outputs.pb").write_bytes(own)
    assert await place.upload(y=INTEGER) == {"y": 1}


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "flyte_unified", "data", *args]


def test_the_uploader_waits_for_its_signal(place: Place):
    """As kubelet sends it when the task's containers have ended; the file tells when it may."""
    variables = json_format.ParseDict({"variables": [{"key": "y", "value": {"type": INTEGER}}]}, interface_pb2.VariableMap())
    ready, to = place.store / "ready", place.store / "attempt"
    types = base64.b64encode(variables.SerializeToString()).decode()
    args = ("upload", f"--from={place.work}", f"--to={to}", f"--raw={place.store}", f"--ready={ready}", f"--outputs={types}")
    with subprocess.Popen(command(*args)) as process:
        while not ready.exists():  # as postStart does
            assert process.poll() is None
            time.sleep(0.01)
        place.left("y", "3")
        assert not to.exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert common_pb2.Outputs.FromString((to / "outputs.pb").read_bytes()).literals[0].value == literal(integer(3))


def test_the_downloader_tells_what_it_was_given(place: Place):
    """Inputs that aren't there are told in error.pb and on standard error."""
    args = ("download", f"--from={place.store / 'none.pb'}", f"--to={place.work}", f"--errors={place.store / 'attempt'}")
    ran = subprocess.run(command(*args), capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert "none.pb does not exist" in ran.stderr
    document = execution_pb2.ErrorDocument.FromString((place.store / "attempt" / "error.pb").read_bytes())
    assert (document.error.code, "none.pb" in document.error.message) == ("InputUnreadable", True)
    place.given(x=integer(1))
    args = ("download", f"--from={place.store / 'inputs.pb'}", f"--to={place.work}", "--errors=/nowhere")
    assert subprocess.run(command(*args), check=False, timeout=60).returncode == 0
    assert place.read("x") == "1"
