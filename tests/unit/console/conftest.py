"""The console on a real ledger and a real directory, at a time of the test's choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.core.literals_pb2 import Literal, Primitive, Scalar
from flyteidl2.task import common_pb2, task_definition_pb2

from flyte_unified.console.pages import Pages
from flyte_unified.core.clock import SECOND, Micros
from flyte_unified.core.http import Request, Response
from flyte_unified.core.ids import ActionKey, RunKey
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.api import Line, LogTail
from flyte_unified.db.api import Database
from flyte_unified.ledger.api import Action, ActionType, EncodedSpec, Ledger, Move, NewRun, Run, task_action
from flyte_unified.rpc.web import Router
from flyte_unified.storage.local import LocalStore
from flyte_unified.storage.signing import Signer

START = 1_780_000_000 * SECOND
RUN = RunKey("flytesnacks", "development", "rfirst")
ROOT = RUN.action("a0")


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> Micros:
        return Micros(self.at)

    def monotonic(self) -> float:
        return self.at / SECOND

    def pass_(self, seconds: float) -> None:
        self.at += int(seconds * SECOND)


@dataclass
class WrittenLines:
    """Logs in memory, by attempt."""

    texts: dict[tuple[ActionKey, int], list[str]] = field(default_factory=dict)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, key: ActionKey, attempt: int, over: asyncio.Event) -> AsyncGenerator[Sequence[Line]]:
        sent = 0
        while True:
            ended = over.is_set()
            if fresh := self.texts.get((key, attempt), [])[sent:]:
                sent += len(fresh)
                yield [Line(Micros(0), text) for text in fresh]
            elif ended:
                return
            else:
                await over.wait()


class Outline(HTMLParser):
    """What a page says: its text, links, headings and problems of its markup."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.links: dict[str, str] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self._href = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "a":
            self._href = dict(attrs)["href"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "a":
            self._href = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
            if self._href:
                self.links.setdefault(data, self._href)

    def refreshes(self) -> str | None:
        return next((found["content"] for tag, found in self.elements if tag == "meta" and "http-equiv" in found), None)


def outline(response: Response) -> Outline:
    assert isinstance(response.body, bytes)
    parser = Outline()
    parser.feed(response.body.decode())
    parser.close()
    assert parser.open == []
    parser.text = " ".join(parser.text.split())
    return parser


def literal(value: int | str) -> Literal:
    primitive = Primitive(integer=value) if isinstance(value, int) else Primitive(string_value=value)
    return Literal(scalar=Scalar(primitive=primitive))


@dataclass
class Console:
    clock: FakeClock
    ledger: Ledger
    store: LocalStore
    lines: WrittenLines
    pages: Pages

    async def get(self, path: str) -> Response:
        """As the edge does it: the route whose pattern matches."""
        path, _, query = path.partition("?")
        path = unquote(path)
        found = Router(self.pages.routes).find(path)
        assert found is not None, path
        methods, match = found
        request = Request("GET", path, dict(parse_qsl(query)), (), _nothing(), base_url="http://localhost:30080", match=match)
        return await methods["GET"].handler(request)

    async def see(self, path: str) -> Outline:
        response = await self.get(path)
        assert response.status == 200, response
        return outline(response)

    async def run(
        self, key: RunKey = RUN, *, name: str = "pipeline.main", labels: Mapping[str, str] | None = None, **inputs: int | str
    ) -> Action:
        """A run whose root action is queued."""
        root = replace(await self._action(key.action("a0"), name, parent=None, **inputs))
        run = Run(
            key=key,
            run_spec=b"",
            labels=labels or {},
            source=2,
            request_id=None,
            content="",
            output_base=root.output_base,
            start_time=root.created_at,
            created_by="",
            created_at=root.created_at,
        )
        return (await self.ledger.create_run(NewRun(run=run, root=root, spec=_spec(name).raw)))[1]

    async def child(self, name: str, *, parent: str = "a0", task: str = "pipeline.step", **inputs: int | str) -> ActionKey:
        """A task's action, queued."""
        key = ROOT.sibling(name)
        await self.ledger.enqueue(await self._action(key, task, parent=parent, **inputs), _spec(task))
        return key

    async def note(self, name: str, kind: ActionType, *, spec: bytes, parent: str = "a0", phase: Phase) -> ActionKey:
        """A trace or a condition."""
        action = await self._action(ROOT.sibling(name), name, parent=parent)
        await self.ledger.enqueue(
            replace(action, action_type=kind, spec=spec, spec_digest=None, input_uri="", task_type="", phase=phase)
        )
        return action.key

    async def end(self, key: ActionKey, phase: Phase = Phase.SUCCEEDED, *, seconds: float = 1.0, **outputs: int | str) -> None:
        """Lets it run for ``seconds`` and end."""
        await self.ledger.move(key, Move(to=Phase.RUNNING))
        self.clock.pass_(seconds)
        uri = await self._file(f"{key.run}/{key.name}/outputs.pb", outputs) if outputs else ""
        error = None
        if phase is Phase.FAILED:
            error = execution_pb2.ExecutionError(code="ValueError", message="bad value", kind=execution_pb2.ExecutionError.USER)
        await self.ledger.move(key, Move(to=phase, output_uri=uri, error=error))

    async def _action(self, key: ActionKey, task: str, *, parent: str | None, **inputs: int | str) -> Action:
        self.clock.pass_(0.001)
        uri = await self._file(f"{key.run}/{key.name}/inputs.pb", inputs) if inputs else ""
        base = f"{self.store.base('objects')}/{key.run}"
        return task_action(key, _spec(task), now=self.clock.now(), parent=parent, input_uri=uri, output_base=base)

    async def _file(self, path: str, values: Mapping[str, int | str]) -> str:
        message = common_pb2.Inputs()
        for name, value in values.items():
            message.literals.add(name=name, value=literal(value))
        uri = f"{self.store.base('objects')}/{path}"
        await self.store.put(uri, message.SerializeToString())
        return uri


def _spec(name: str) -> EncodedSpec:
    spec = task_definition_pb2.TaskSpec(short_name=name.rpartition(".")[2])
    spec.task_template.id.name = name
    spec.task_template.id.project, spec.task_template.id.domain = RUN.project, RUN.domain
    spec.task_template.id.version = "v1"
    spec.task_template.type = "python"
    return EncodedSpec.of(spec)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@pytest.fixture
async def console(tmp_path: Path, database: Database) -> AsyncIterator[Console]:
    clock = FakeClock()
    store = LocalStore({"objects": tmp_path / "objects"}, signer=Signer(b"k" * 32), clock=clock)
    ledger = Ledger(database=database, clock=clock)
    lines = WrittenLines()
    pages = Pages(ledger=ledger, store=store, logs=LogTail(ledger=ledger, lines=lines), clock=clock)
    yield Console(clock, ledger, store, lines, pages)
    ledger.changes.close()
