"""What other rooms may use of the data proxy, and what it needs of them."""

from __future__ import annotations

from flyte_unified.core.ids import RunKey
from flyte_unified.dataproxy.bundles import code_bundle
from flyte_unified.dataproxy.cursor import LogCursor
from flyte_unified.dataproxy.inputs import KICKOFF_TIME, cache_key, check_inputs, fill_defaults, inputs_hash
from flyte_unified.dataproxy.logs import Line, LogTail
from flyte_unified.dataproxy.specs import Specs, check_id, spec_in
from flyte_unified.dataproxy.translator.values import json_of
from flyte_unified.storage.api import join

__all__ = [
    "INPUTS",
    "KICKOFF_TIME",
    "OUTPUTS",
    "TRACKED",
    "UPLOADS",
    "Line",
    "LogCursor",
    "LogTail",
    "Specs",
    "cache_key",
    "check_id",
    "check_inputs",
    "code_bundle",
    "file_in",
    "fill_defaults",
    "inputs_hash",
    "json_of",
    "spec_in",
    "tracked_base",
]

INPUTS = "inputs.pb"
"""flyteidl2.task.Inputs"""
OUTPUTS = "outputs.pb"
"""flyteidl2.task.Outputs"""
UPLOADS = "_uploads"
"""The area of what clients upload. No project can have this name, so nothing here meets the directory of a run."""
TRACKED = "tracked-runs"
"""What the SDK calls the directory of what tracked runs read and write."""


def file_in(uri: str, name: str) -> str:
    """The address of ``name``: clients give the directory that it is in for some actions, the file itself for others."""
    return uri if uri.endswith(f"/{name}") else join(uri, name)


def tracked_base(base: str, run: RunKey) -> str:
    """The directory of a tracked run in the area of uploads below ``base``, with one for each action in it."""
    return join(base, UPLOADS, run.project, run.domain, TRACKED, run.run)
