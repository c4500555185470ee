"""What other rooms may use of artifacts."""

from flyte_unified.artifacts.produced import Produced
from flyte_unified.artifacts.service import Artifacts

__all__ = ["Artifacts", "Produced"]
