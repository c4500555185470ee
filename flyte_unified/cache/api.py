"""What other rooms may use of the cache."""

from flyte_unified.cache.service import Cache, scoped_key

__all__ = ["Cache", "scoped_key"]
