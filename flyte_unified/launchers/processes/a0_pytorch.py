"""The SDK's task program, with all nodes of PyTorch's elastic launcher as one. Run by path in the task's interpreter.

A launcher starts the processes of its own node and waits for the other nodes' launchers. Here are no others: this one starts
the processes of all. Ranks and their number are as asked for; local ranks count on, as is true of one machine.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def gather_nodes() -> None:
    """Have ``elastic_launch`` count the processes of all nodes as this one's."""
    import dataclasses

    from torch.distributed.launcher.api import elastic_launch

    begin = elastic_launch.__init__

    def gathered(self: Any, config: Any, entrypoint: Any) -> None:
        processes = config.nproc_per_node * config.max_nodes
        begin(self, dataclasses.replace(config, min_nodes=1, max_nodes=1, nproc_per_node=processes), entrypoint)

    elastic_launch.__init__ = gathered


if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path[:] = [path for path in sys.path if path != str(here)]  # no place for the task's imports
    gather_nodes()
    runpy.run_path(str(here / "a0.py"), run_name="__main__")
