"""What ``torchrun`` does for the processes of one node, with the words that it is told here."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("nnodes", "node_rank", "nproc_per_node", "master_port", "max_restarts"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--master_addr", required=True)
    parser.add_argument("--no_python", action="store_true", required=True)
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    world = asked.nnodes * asked.nproc_per_node
    ranks = [
        subprocess.Popen(
            [asked.program, *asked.arguments],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(asked.nproc_per_node),
                "MASTER_ADDR": asked.master_addr,
                "MASTER_PORT": str(asked.master_port),
                "TORCHELASTIC_RUN_ID": "none",
            },
        )
        for rank in range(world)
    ]
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            for rank in ranks:
                rank.terminate()
        time.sleep(0.05)
    return int(any(rank.wait() for rank in ranks))


if __name__ == "__main__":
    sys.exit(main())
