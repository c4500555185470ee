"""The console's routes: from a request to a page, and to logs and files.

Pages hold what users wrote, so each says what a browser may do with it: nothing but show it in our own style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from importlib import resources
from urllib.parse import quote

from flyteidl2.common import identifier_pb2

from flyte_unified.console import actions, lists, places, store, values
from flyte_unified.console.html import Html, tag
from flyte_unified.console.parts import Page, document
from flyte_unified.console.store import ActionMark, RunMark, Scope
from flyte_unified.core.clock import Clock, SystemClock
from flyte_unified.core.context import Headers
from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, NotFound
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.core.ids import ROOT_ACTION, ActionKey, action_key, scope_part
from flyte_unified.core.phases import Phase
from flyte_unified.dataproxy.api import LogTail
from flyte_unified.ledger.api import ActionType, Ledger
from flyte_unified.notifications.api import undelivered
from flyte_unified.storage.api import DataStore

_LINK_SECONDS = 300.0
"""How long an address of a file, which is made when it is followed, can be used."""
_STATUS = {Code.NOT_FOUND: 404, Code.INVALID_ARGUMENT: 400}
_HEADERS: Headers = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
_NOTHING_MORE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CLOCK = SystemClock()

_Handler = Callable[[Request], Awaitable[Response]]


class Pages:
    """``public_url`` begins the addresses of files in a store that serves its own; empty: as the reader reached us."""

    def __init__(self, *, ledger: Ledger, store: DataStore, logs: LogTail, clock: Clock = _CLOCK, public_url: str = "") -> None:
        self._ledger = ledger
        self._store = store
        self._logs = logs
        self._clock = clock
        self._public_url = public_url
        self._style = Html(_resource("style.css").decode())
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = f"default-src 'none'; img-src 'self'; style-src 'sha256-{digest}'; {_NOTHING_MORE}"

    @property
    def routes(self) -> list[Route]:
        project = f"{places.HOME}/domain/{{domain}}/project/{{project}}"
        run = f"{project}/runs/{{run}}"
        attempt = f"{run}/actions/{{action}}/attempts/{{attempt:[0-9]{{1,6}}}}"
        handlers: dict[str, _Handler] = {
            "/": self._home,
            "/favicon.ico": self._icon,
            places.HOME: self._runs,
            project: self._runs,
            f"{project}/runs": self._runs,
            f"{project}/tasks/{{task}}": self._runs,
            f"{project}/triggers/{{task}}/{{trigger}}": self._runs,
            run: self._run,
            f"{project}/tracked-runs/{{run}}": self._run,
            f"{run}/actions/{{action}}/{{name:inputs|outputs}}": self._file,
            f"{attempt}/log": self._log,
            f"{attempt}/report": self._report,
            f"{project}/artifacts/{{artifact}}": self._artifact,
            f"{places.HOME}/{{rest:.*}}": self._unknown,
        }
        return [Route("GET", path, self._answering(handler)) for path, handler in handlers.items()]

    def log_link(self, key: ActionKey, attempt: int) -> str:
        """The path of an attempt's log."""
        return places.log(key, attempt)

    def _answering(self, handler: _Handler) -> _Handler:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except FlyteUnifiedError as error:
                if error.code not in _STATUS:
                    raise
                return self._refusal(request, error)

        return answer

    async def _home(self, request: Request) -> Response:
        return _redirect(places.HOME)

    async def _icon(self, request: Request) -> Response:
        headers = (("content-type", "image/svg+xml"), ("cache-control", "max-age=86400"))
        return Response(200, headers, _resource("icon.svg"))

    async def _artifact(self, request: Request) -> Response:
        project, domain, name = (request.match[part] for part in ("project", "domain", "artifact"))
        raise NotFound(f"artifacts have no page yet; `flyte get artifact -p {project} -d {domain} {name}` shows this one")

    async def _unknown(self, request: Request) -> Response:
        if request.path.endswith("/"):
            return _redirect(quote(request.path.rstrip("/")))
        raise NotFound("there is no such page; runs and tasks have one, other things are listed by the flyte command")

    async def _runs(self, request: Request) -> Response:
        scope = _scope(request.match)
        after = places.mark(RunMark, request.query)
        runs, more = await self._ledger.read(lambda: store.recent_runs(scope, after))
        page = lists.runs_page(runs, scope, path=request.path, first=after is None, more=more, now=self._clock.now())
        return self._page(request, page)

    async def _run(self, request: Request) -> Response:
        key = _action_key(request.match, request.query.get("i") or ROOT_ACTION)
        phase, after = _phase(request.query), places.mark(ActionMark, request.query)
        run, _ = await self._ledger.run(key.run_key)
        details = await self._ledger.details(key)
        action = details.action
        tree = chosen = None
        if phase is not None:
            chosen = (phase, *await self._ledger.read(lambda: store.in_phase(key.run_key, phase, after)))
        else:
            tree = await self._ledger.read(lambda: store.tree(key, after))
        found = [await values.read(action, name, store=self._store) for name in ("inputs", "outputs")]
        shown = actions.Shown(
            run=run,
            details=details,
            line=await self._ledger.read(lambda: store.line(key)),
            counts=await self._ledger.read(lambda: store.phase_counts(key.run_key)),
            tree=tree,
            chosen=chosen,
            values=[each for each in found if each is not None],
            further=after is not None,
            undelivered=await self._ledger.read(lambda: undelivered(key)),
        )
        return self._page(request, actions.action_page(shown, now=self._clock.now()))

    async def _log(self, request: Request) -> Response:
        key, attempt = _action_key(request.match), int(request.match["attempt"])
        action = await self._ledger.action(key)
        if action.action_type is not ActionType.TASK:
            raise NotFound(f"action {key} is no task and has no log")
        if attempt > action.attempt:
            raise NotFound(f"action {key} has no attempt {attempt}; its latest is {action.attempt}")
        headers = (("content-type", "text/plain; charset=utf-8"), ("content-security-policy", "default-src 'none'; sandbox"))
        return Response(200, (*_HEADERS, *headers), self._lines(key, attempt))

    async def _lines(self, key: ActionKey, attempt: int) -> AsyncIterator[bytes]:
        async with aclosing(self._logs.follow(key, attempt)) as batches:
            async for batch in batches:
                if batch:
                    yield "".join(line.text for line in batch).encode("utf-8", "replace")

    async def _report(self, request: Request) -> Response:
        key, attempt = _action_key(request.match), int(request.match["attempt"])
        details = await self._ledger.details(key)
        uri = next((record.outputs.report_uri for record in details.attempts if record.attempt == attempt), "")
        return await self._download(request, uri, what=f"a report of attempt {attempt} of action {key}")

    async def _file(self, request: Request) -> Response:
        key, name = _action_key(request.match), request.match["name"]
        uri = values.uri_of(await self._ledger.action(key), name)
        return await self._download(request, uri, what=f"a file with {name} of action {key}")

    async def _download(self, request: Request, uri: str, *, what: str) -> Response:
        if not uri:
            raise NotFound(f"there isn't {what}")
        base_url = self._public_url or request.base_url
        return _redirect((await self._store.sign_download(uri, expires_in=_LINK_SECONDS, base_url=base_url)).url)

    def _refusal(self, request: Request, error: FlyteUnifiedError) -> Response:
        status = _STATUS[error.code]
        title = "Not found" if status == 404 else "Not understood"
        sentence = f"{error.message[:1].upper()}{error.message[1:]}."
        body = tag("div", tag("h1", title), tag("p", sentence), class_="sorry")
        return self._page(request, Page(title=title, body=body), status=status)

    def _page(self, request: Request, page: Page, *, status: int = 200) -> Response:
        query = dict(request.query)
        paused = query.pop("live", "") == "off"
        other = places.with_query(request.path, **query) if paused else places.with_query(request.path, **query, live="off")
        body = document(page, style=self._style, other=other, paused=paused)
        headers = (("content-type", "text/html; charset=utf-8"), ("content-security-policy", self._policy))
        return Response(status, (*_HEADERS, *headers), body)


def _resource(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _redirect(to: str) -> Response:
    return Response(302, (*_HEADERS, ("location", to)))


def _scope(match: Mapping[str, str]) -> Scope:
    if "project" not in match:
        return Scope()
    project, domain = (scope_part(match[name], field=name) for name in ("project", "domain"))
    if "\0" in match.get("task", ""):
        raise InvalidArgument("task: a name holds no NUL")
    return Scope(project, domain, match.get("task", ""))


def _action_key(match: Mapping[str, str], action: str = "") -> ActionKey:
    run = identifier_pb2.RunIdentifier(project=match["project"], domain=match["domain"], name=match["run"])
    return action_key(identifier_pb2.ActionIdentifier(run=run, name=action or match["action"]))


def _phase(query: Mapping[str, str]) -> Phase | None:
    name = query.get("phase", "")
    if not name:
        return None
    try:
        return Phase[name.upper()]
    except KeyError:
        raise InvalidArgument(f"phase: {name[:128]!r} is none") from None
