"""What the SDK tells of a model that was prefetched: ``models.py <artifact> <run>``."""

from __future__ import annotations

import sys

import flyte
from flyte.remote import Artifact, Run
from speak import say

if __name__ == "__main__":
    flyte.init_from_config()
    name, run = sys.argv[1:]
    model = Artifact.get(name)
    info = model.pb2.spec.info
    say("artifact", version=model.version, kind=model.kind, facts=dict(info.user_metadata), card=info.card.format)
    say("run", report=Run.get(run).get_report())
