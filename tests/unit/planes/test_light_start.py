"""What a laptop's start loads, as most of its time is spent on loading."""

from __future__ import annotations

import subprocess
import sys

_ELSEWHERE = ("alembic", "asyncpg", "betterproto2", "cryptography", "flyte", "kubernetes", "sqlalchemy.dialects.postgresql")


def test_a_laptop_loads_nothing_of_a_cluster() -> None:
    """Neither what speaks to one, nor what its database needs, nor what few servers ever use."""
    program = f"import sys, flyte_unified.manager; print(*(name for name in {_ELSEWHERE} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
