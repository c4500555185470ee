"""Bytes on their way in: where a client may put a file, and the inputs of runs to come.

Content decides the place wherever it can. A file without ``filename_root`` lies under its MD5; inputs lie under the SHA-256 of
all of them, whatever counts for caching, so that two runs never share a file that says different things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from flyteidl2.common import run_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.task import task_definition_pb2
from google.protobuf.duration_pb2 import Duration

from flyte_unified.core.clock import seconds, timestamp
from flyte_unified.core.errors import AlreadyExists, InvalidArgument
from flyte_unified.core.ids import scope_part
from flyte_unified.dataproxy.api import INPUTS, TRACKED, UPLOADS
from flyte_unified.dataproxy.bundles import is_bundle
from flyte_unified.dataproxy.inputs import check_inputs, fill_defaults, inputs_hash
from flyte_unified.dataproxy.specs import Specs, spec_in
from flyte_unified.ledger.api import TaskId
from flyte_unified.storage.api import DataStore, checked_path, join

_MD5_BYTES = 16
_REPORT = "report.html"


class Uploads:
    """``base`` is the address below which uploads lie; ``bundles`` the one for code bundles.

    Clients remember for a day where they put a bundle, so ``bundles`` must be a place that outlives the server.
    ``require_project`` raises NotFound for a project or domain that does not exist.
    """

    def __init__(
        self,
        *,
        store: DataStore,
        specs: Specs,
        require_project: Callable[[str, str], Awaitable[None]],
        base: str,
        bundles: str,
        max_bytes: int,
        max_expiry: float,
    ) -> None:
        self._store = store
        self._specs = specs
        self._require_project = require_project
        self._base = base
        self._bundles = bundles
        self._max_bytes = max_bytes
        self._max_expiry = max_expiry

    async def location(
        self, message: dataproxy.CreateUploadLocationRequest, *, base_url: str
    ) -> dataproxy.CreateUploadLocationResponse:
        """A URL for one file. Raises AlreadyExists if its name is taken by other content."""
        scope = scope_part(message.project, field="project"), scope_part(message.domain, field="domain")
        md5 = message.content_md5
        if len(md5) != _MD5_BYTES:
            raise InvalidArgument(f"content_md5 has {len(md5)} bytes; an MD5 digest has {_MD5_BYTES}")
        max_length = self._max_length(message.content_length)
        expires_in = lifetime(message.expires_in, limit=self._max_expiry)
        name = checked_path(message.filename or md5.hex(), field="filename")
        root = message.filename_root.rstrip("/")
        replace = root.startswith(f"{TRACKED}/") and name == _REPORT  # a report that grows while its run goes on
        if root:
            uri = join(self._base, UPLOADS, *scope, checked_path(root, field="filename_root"), name)
        else:
            uri = join(self._bundles if is_bundle(name) else join(self._base, UPLOADS), *scope, md5.hex(), name)
        await self._require_project(*scope)
        if root and not replace and await self._store.head(uri) is not None and await self._store.md5(uri) != md5:
            raise AlreadyExists(f"filename: {name!r} exists below filename_root {root!r} with other content")
        await self._store.check_room()
        signed = await self._store.sign_upload(
            uri, md5=md5, max_length=max_length, expires_in=expires_in, base_url=base_url, replace=replace
        )
        return dataproxy.CreateUploadLocationResponse(
            signed_url=signed.url, native_url=uri, expires_at=timestamp(signed.expires_at), headers=signed.headers
        )

    async def inputs(self, message: dataproxy.UploadInputsRequest) -> run_pb2.OffloadedInputData:
        """Checks and stores the inputs of a run or trigger. What is stored is never overwritten."""
        scope = _scope(message)
        base = message.base_dir.rstrip("/") if message.base_dir else self._base
        if not self._store.owns(join(base, UPLOADS)):
            raise InvalidArgument(f"base_dir: {base!r} is not below the server's storage; leave it empty")
        await self._require_project(*scope)
        spec = await self._spec(message)
        inputs = fill_defaults(message.inputs, spec)
        check_inputs(inputs, spec, complete=False)
        data = inputs.SerializeToString(deterministic=True)
        uri = join(base, UPLOADS, *scope, "offloaded-inputs", hashlib.sha256(data).hexdigest(), INPUTS)
        await self._store.check_room()
        await self._store.put(uri, data, if_absent=True)
        ignored = spec.task_template.metadata.cache_ignore_input_vars
        return run_pb2.OffloadedInputData(uri=uri, inputs_hash=inputs_hash(inputs, frozenset(ignored)))

    async def _spec(self, message: dataproxy.UploadInputsRequest) -> task_definition_pb2.TaskSpec:
        if message.WhichOneof("task") != "trigger_name":
            return await spec_in(message, self._specs)
        trigger = message.trigger_name
        task = TaskId(trigger.project, trigger.domain, trigger.task_name)
        return await self._specs.of_trigger(task, trigger.name)

    def _max_length(self, told: int) -> int:
        if told < 0:
            raise InvalidArgument(f"content_length: {told} is no length")
        if told > self._max_bytes:
            raise InvalidArgument(f"content_length: {told} is more than storage.upload_max_bytes ({self._max_bytes})")
        return told or self._max_bytes


def _scope(message: dataproxy.UploadInputsRequest) -> tuple[str, str]:
    """Project and domain."""
    match message.WhichOneof("id"):
        case "run_id":
            run = message.run_id
            return scope_part(run.project, field="run_id.project"), scope_part(run.domain, field="run_id.domain")
        case "project_id":
            place = message.project_id
            return scope_part(place.name, field="project_id.name"), scope_part(place.domain, field="project_id.domain")
    raise InvalidArgument("id: one of run_id and project_id must be set")


def lifetime(asked: Duration, *, limit: float) -> float:
    """Seconds for which a URL is asked for; ``limit`` where nothing is said. InvalidArgument beyond it."""
    wanted = seconds(asked)
    if not 0 <= wanted <= limit:
        raise InvalidArgument(f"expires_in: {wanted:g} s is not between 0 and {limit:g} s")
    return wanted or limit
