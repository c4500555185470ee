"""The SDK's task program within a Dask cluster of this machine. Run by path in the task's interpreter: ``<workers> <a0's>``.

In a cluster an operator starts scheduler and workers, and leads every ``Client()`` there by a variable. So it is here, with
processes; without, each ``Client()`` would start a cluster of its own.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # workers import this file anew
    here = Path(__file__).parent
    sys.path[:] = [path for path in sys.path if path != str(here)]  # no place for the task's imports
    workers = int(sys.argv.pop(1))

    import dask
    from distributed import Client, LocalCluster

    threads = max(1, (os.cpu_count() or 1) // workers)
    with LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=None) as cluster:
        os.environ["DASK_SCHEDULER_ADDRESS"] = cluster.scheduler_address
        dask.config.refresh()
        try:
            runpy.run_path(str(here / "a0.py"), run_name="__main__")
        finally:
            for client in [*getattr(Client, "_instances", ())]:  # the SDK's; it would complain that its cluster is gone
                client.close()
