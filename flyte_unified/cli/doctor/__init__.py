"""``flyte-unified doctor``: look at everything that a server and its clients need, and say how to mend what is not well.

Nothing is changed: a directory that a start would make is not made, a database that it would move forward is left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from flyte_unified.cli import options
from flyte_unified.core.errors import FailedPrecondition


def add_to(verbs: Any) -> None:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "doctor",
        help="look for what is not well, and say how to mend it",
        description="Look at the machine, the data, the clients and, where there is one, the cluster. The exit status is 1 "
        "when something keeps a server or its tasks from working.",
    )
    parser.add_argument("--json", action="store_true", help="the findings, for programs")
    options.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flyte_unified.cli.doctor import clients, data, machine
    from flyte_unified.cli.doctor.finding import Level, examined

    settings = options.load(args)
    checks = [*machine.CHECKS, *data.CHECKS, *clients.CHECKS]
    if settings.execution.launcher == "pods":
        try:
            from flyte_unified.cli.doctor import cluster
        except ModuleNotFoundError as error:
            raise FailedPrecondition(f"a cluster needs {error.name}: pip install 'flyte-unified[cluster]'") from error
        checks += cluster.CHECKS
    findings = asyncio.run(examined(checks, settings))
    if args.json:
        sys.stdout.write(json.dumps([finding.as_json() for finding in findings], indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for finding in findings for line in finding.lines())
    return 1 if any(finding.level is Level.ERROR for finding in findings) else 0
