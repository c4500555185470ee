"""All ranks of a clustered task on this machine. Run by path in the task's interpreter; standard library only.

In a cluster JobSet makes a pod for each node, and the SDK's program ``clustered`` turns JobSet's variables into a launcher's.
Here there is one node: torchrun starts every rank, or, for JAX, which has no launcher, a process here is what a node is there.
When a rank fails all begin again, as often as the task allows, as JobSet does it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_A0 = str(Path(__file__).with_name("a0.py"))
_ADDRESS = "127.0.0.1"


def main() -> int:
    """The exit code of the ranks that failed last, or 0."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--runtime", choices=("torchrun", "jax"), required=True)
    for number in ("nodes", "processes", "restarts", "inner-restarts"):
        parser.add_argument(f"--{number}", type=int, required=True)
    asked, command = parser.parse_known_args()
    worker = [sys.executable, _A0, *command]
    code = 1
    for restart in range(asked.restarts + 1):
        environment = {
            **os.environ,
            "FLYTE_CLUSTERED_WORKER": "1",
            "JOBSET_RESTART_ATTEMPT": str(restart),
            "JOBSET_MAX_RESTARTS": str(asked.restarts),
            "MASTER_ADDR": _ADDRESS,
            "MASTER_PORT": str(_free_port()),
        }
        run = _torchrun if asked.runtime == "torchrun" else _jax
        code = run(asked, worker, environment)
        if code == 0:
            break
    return code


def _torchrun(asked: argparse.Namespace, worker: list[str], environment: dict[str, str]) -> int:
    ranks = asked.nodes * asked.processes
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--node_rank=0", f"--nproc_per_node={ranks}"),
        *(f"--master_addr={_ADDRESS}", f"--master_port={environment['MASTER_PORT']}"),
        *(f"--max_restarts={asked.inner_restarts}", "--no_python", *worker),
    ]
    return subprocess.call(command, env={**environment, "NNODES": "1", "NODE_RANK": "0"})


def _jax(asked: argparse.Namespace, worker: list[str], environment: dict[str, str]) -> int:
    """The first that fails takes the others along: they would wait for it."""
    world = str(asked.nodes)
    environment |= {"JAX_COORDINATOR_ADDRESS": f"{_ADDRESS}:{environment['MASTER_PORT']}"}
    environment |= {"NNODES": world, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    ranks = [subprocess.Popen(worker, env={**environment, "RANK": str(n), "NODE_RANK": str(n)}) for n in range(asked.nodes)]
    waiting, code = {rank.pid: rank for rank in ranks}, 0
    while waiting:
        pid, status = os.wait()  # orphans of a rank are our children too
        if (rank := waiting.pop(pid, None)) is None:
            continue
        rank.returncode = os.waitstatus_to_exitcode(status)
        if rank.returncode and not code:
            code = rank.returncode if rank.returncode > 0 else 1
            for other in waiting.values():
                os.kill(other.pid, signal.SIGKILL)
    return code


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((_ADDRESS, 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
