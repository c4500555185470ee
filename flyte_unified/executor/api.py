"""What other rooms may use of the executor."""

from flyte_unified.executor.caching import Catalog, Found

__all__ = ["Catalog", "Found"]
