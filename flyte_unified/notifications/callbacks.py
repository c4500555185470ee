"""The address by which whoever got a condition's webhook signals the condition.

It carries all that is needed, signed: it works after a restart, for this condition and no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from flyteidl2.core import literals_pb2, types_pb2
from flyteidl2.workflow import run_definition_pb2

from flyte_unified.core.errors import Code, FlyteUnifiedError, InvalidArgument, NotFound, OutOfRange
from flyte_unified.core.http import Request, Response, Route
from flyte_unified.core.ids import ActionKey
from flyte_unified.ledger.api import ActionType, Ledger, signal

_PREFIX = "/callbacks/"
_HASH_BYTES = 16
_MOST_BYTES = 1 << 20
_STATUS = {Code.INVALID_ARGUMENT: 400, Code.NOT_FOUND: 404, Code.FAILED_PRECONDITION: 409, Code.OUT_OF_RANGE: 413}
_PRINCIPAL = "webhook"
_HOW = b'POST the value here: as JSON, true or {"value": true}, or as ?value=true\n'


class Callbacks:
    """``key`` is the server's secret, ``address`` how clients reach it."""

    def __init__(self, *, key: bytes, address: str, ledger: Ledger) -> None:
        self._key = hashlib.sha256(b"callback" + key).digest()
        self._address = address.rstrip("/")
        self._ledger = ledger

    @property
    def routes(self) -> list[Route]:
        path = f"{_PREFIX}{{token}}"
        return [Route("POST", path, self._post), Route("GET", path, self._get)]

    def uri(self, condition: ActionKey) -> str:
        """Where ``condition`` is signalled."""
        return f"{self._address}{_PREFIX}{self._token(condition)}"

    async def _get(self, _: Request) -> Response:
        """Changes nothing: chats look at links that they show."""
        return Response(405, (("allow", "POST"), ("content-type", "text/plain; charset=utf-8")), _HOW)

    async def _post(self, request: Request) -> Response:
        try:
            condition = self._condition(request.match["token"])
            raw = await _read(request)
            told = _parsed(request.query["value"].encode(), bare=True) if "value" in request.query else _parsed(raw)
            await signal(self._ledger, condition, await self._literal(condition, told), principal=_PRINCIPAL)
        except FlyteUnifiedError as error:
            return _answer(_STATUS.get(error.code, 503), error=error.message)
        return _answer(200, signalled=True)

    def _condition(self, token: str) -> ActionKey:
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            key = ActionKey._make(raw[_HASH_BYTES:].decode().split(","))
        except (ValueError, TypeError):
            key = ActionKey("", "", "", "")
        if not hmac.compare_digest(token.encode(), self._token(key).encode()):
            raise NotFound("this is no address of a condition on this server")
        return key

    async def _literal(self, condition: ActionKey, told: Any) -> literals_pb2.Literal:
        action = await self._ledger.action(condition)
        if action.action_type is not ActionType.CONDITION:
            raise NotFound("this is no address of a condition on this server")
        wanted = run_definition_pb2.ConditionAction.FromString(action.spec or b"").type.simple
        try:
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=_primitive(told, wanted)))
        except (ValueError, OverflowError) as error:  # half a character, a number that no float can be
            raise InvalidArgument(f"the value can't be one of a condition: {type(error).__name__}") from error

    def _token(self, condition: ActionKey) -> str:
        text = ",".join(condition).encode()
        mac = hmac.new(self._key, text, hashlib.sha256).digest()[:_HASH_BYTES]
        return base64.urlsafe_b64encode(mac + text).decode().rstrip("=")


async def _read(request: Request) -> bytes:
    raw = b""
    async for piece in request.body:
        raw += piece
        if len(raw) > _MOST_BYTES:
            raise OutOfRange(f"a value has at most {_MOST_BYTES} bytes")
    return raw


def _parsed(raw: bytes, *, bare: bool = False) -> Any:
    """A value in JSON, alone or as ``value`` of an object. ``bare``: what is no JSON is text."""
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if bare:
            return raw.decode(errors="replace")
        raise InvalidArgument('the body is no JSON: a value is expected, alone or as {"value": ...}') from error
    return told["value"] if isinstance(told, dict) and "value" in told else told


def _primitive(told: Any, wanted: int) -> literals_pb2.Primitive:
    """``told`` as what the condition waits for; what does not fit is refused with its own type's words by ``signal``."""
    match told:
        case bool():
            return literals_pb2.Primitive(boolean=told)
        case int() if wanted == types_pb2.INTEGER and -(1 << 63) <= told < 1 << 63:
            return literals_pb2.Primitive(integer=told)
        case int() | float() if wanted == types_pb2.FLOAT:
            return literals_pb2.Primitive(float_value=told)
        case str():
            return literals_pb2.Primitive(string_value=told)
        case int() | float() if wanted == types_pb2.STRING:
            return literals_pb2.Primitive(string_value=str(told))
    return literals_pb2.Primitive()


def _answer(status: int, **told: object) -> Response:
    return Response(status, (("content-type", "application/json"),), json.dumps(told).encode() + b"\n")
