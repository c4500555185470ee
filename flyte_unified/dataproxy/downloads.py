"""Bytes on their way out: an action's inputs and outputs, and links to reports and code."""

from __future__ import annotations

from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.task import common_pb2

from flyte_unified.core.clock import timestamp
from flyte_unified.core.errors import InvalidArgument, NotFound, Unimplemented
from flyte_unified.core.ids import ActionKey, action_key
from flyte_unified.core.phases import SUCCESS
from flyte_unified.dataproxy.api import INPUTS, OUTPUTS, file_in
from flyte_unified.dataproxy.bundles import code_bundle
from flyte_unified.dataproxy.specs import Specs, task_id
from flyte_unified.dataproxy.uploads import lifetime
from flyte_unified.ledger.api import Action, ActionType, Ledger
from flyte_unified.storage.api import DataStore, join

_REPORT = "report.html"


class Downloads:
    """``max_bytes`` is the largest inputs.pb or outputs.pb that is read, ``max_expiry`` the longest life of a link."""

    def __init__(self, *, store: DataStore, ledger: Ledger, specs: Specs, max_bytes: int, max_expiry: float) -> None:
        self._store = store
        self._ledger = ledger
        self._specs = specs
        self._max_bytes = max_bytes
        self._max_expiry = max_expiry

    async def data(self, key: ActionKey) -> dataproxy.GetActionDataResponse:
        """Inputs and outputs. Outputs that are not there (yet) are empty, and so are inputs that a tracked run's client keeps
        to itself; others that should be there are NotFound.
        """
        action = await self._ledger.action(key)
        response = dataproxy.GetActionDataResponse()
        if action.input_uri and (action.tracked or action.action_type is ActionType.TASK):
            await self._add_inputs(action, response)
        if action.phase in SUCCESS:
            await self._add_outputs(action, response)
        return response

    async def link(
        self, message: dataproxy.CreateDownloadLinkRequest, *, base_url: str
    ) -> dataproxy.CreateDownloadLinkResponse:
        """A URL for the report of an attempt or for the code of an action or a task."""
        expires_in = lifetime(message.expires_in, limit=self._max_expiry)
        source = message.WhichOneof("source")
        if source is None:
            raise InvalidArgument("source: one of action_attempt_id, app_id and task_id must be set")
        if source == "app_id":
            raise Unimplemented("source: links for apps are not served")
        match message.artifact_type:
            case dataproxy.ARTIFACT_TYPE_CODE_BUNDLE:
                uri = await self._bundle(message)
            case dataproxy.ARTIFACT_TYPE_REPORT:
                uri = await self._report(message)
            case _:
                raise InvalidArgument("artifact_type: neither REPORT nor CODE_BUNDLE")
        signed = await self._store.sign_download(uri, expires_in=expires_in, base_url=base_url)
        links = dataproxy.PreSignedURLs(signed_url=[signed.url], expires_at=timestamp(signed.expires_at))
        return dataproxy.CreateDownloadLinkResponse(pre_signed_urls=links)

    async def _add_inputs(self, action: Action, response: dataproxy.GetActionDataResponse) -> None:
        uri = file_in(action.input_uri, INPUTS)
        try:
            response.inputs.MergeFromString(await self._store.get(uri, limit=self._max_bytes))
        except NotFound as error:
            if not action.tracked:
                raise NotFound(f"the inputs of action {action.key} are gone: {error.message}") from error
        else:
            response.inputs_uri = uri

    async def _add_outputs(self, action: Action, response: dataproxy.GetActionDataResponse) -> None:
        if action.value is not None:
            response.outputs.literals.append(common_pb2.NamedLiteral(name="o0"))
            response.outputs.literals[0].value.MergeFromString(action.value)
        elif action.output_uri:
            uri = file_in(action.output_uri, OUTPUTS)
            try:
                response.outputs.MergeFromString(await self._store.get(uri, limit=self._max_bytes))
            except NotFound:
                return
            response.outputs_uri = uri

    async def _bundle(self, message: dataproxy.CreateDownloadLinkRequest) -> str:
        if message.HasField("task_id"):
            spec = await self._specs.of_task(task_id(message.task_id))
        else:
            action = await self._ledger.action(action_key(message.action_attempt_id.action_id))
            if action.spec_digest is None:
                raise NotFound(f"action {action.key} is no task and has no code of its own")
            spec = await self._ledger.spec(action.spec_digest)
        uri = code_bundle(spec.task_template)
        if not uri:
            raise NotFound(f"task {spec.task_template.id.name!r} has no code bundle: its code is in its image")
        return uri

    async def _report(self, message: dataproxy.CreateDownloadLinkRequest) -> str:
        """The report as recorded, or where the attempt under way writes it."""
        if not message.HasField("action_attempt_id"):
            raise InvalidArgument("source: a report belongs to an action's attempt: set action_attempt_id")
        number = message.action_attempt_id.attempt
        details = await self._ledger.details(action_key(message.action_attempt_id.action_id))
        action = details.action
        for attempt in details.attempts:
            if attempt.attempt == (number or action.attempt):
                if attempt.outputs.report_uri:
                    return str(attempt.outputs.report_uri)
                return join(attempt_prefix(action, attempt.attempt), _REPORT)
        raise NotFound(f"action {action.key} has no attempt {number}")


def attempt_prefix(action: Action, attempt: int) -> str:
    """Where an attempt writes."""
    return join(action.output_base, action.key.name, str(attempt))
