"""Log-probabilities of the reference model, and their cache."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cache": ["ReferenceCache", "caches", "read_shard"],
        "scores": ["ReferenceScores", "cache_folder", "score_reference"],
    },
)
