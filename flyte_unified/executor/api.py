"""What other rooms may use of the executor."""

from flyte_unified.executor.caching import Catalog, Found
from flyte_unified.executor.judge import Produced, Promise

__all__ = ["Catalog", "Found", "Produced", "Promise"]
