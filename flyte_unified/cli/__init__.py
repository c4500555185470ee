"""The command line. A verb is a module; what a verb needs is imported when it runs, so that help is instant."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from flyte_unified import __version__
from flyte_unified.cli import config, data, db, doctor, drain, start, status, version
from flyte_unified.core.errors import FlyteUnifiedError

VERBS = (start, status, drain, doctor, config, db, data, version)
_THE_MACHINES = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG),
}
"""Refusals that are about the file that was named, and not about us."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, or 1 after an error that was told on standard error."""
    parser = argparse.ArgumentParser(
        prog="flyte-unified",
        description="Flyte's control plane as one process.",
        epilog="Begin with `flyte-unified start`; `flyte-unified VERB --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"flyte-unified {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_to(verbs)
    args = parser.parse_args(argv)
    try:
        if sys.platform == "win32":
            raise FlyteUnifiedError("Windows is not supported; run flyte-unified in WSL")
        status: int = args.run(args)
    except FlyteUnifiedError as error:
        sys.stderr.write(f"flyte-unified: {error.message}\n")
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.filename is None or error.errno not in _THE_MACHINES:
            raise
        sys.stderr.write(f"flyte-unified: {error.filename}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return status
