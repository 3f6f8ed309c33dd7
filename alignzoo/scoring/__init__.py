"""From packed token trees to log-probabilities."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "batches": ["BatchBuilder", "LossInput"],
        "scored_batch": ["ScoredBatch", "concat_scored"],
        "forest": ["Forest", "lay_out", "sequences"],
        "layout": ["Layout", "choose_layout"],
        "lm_head": ["token_log_probs"],
        "microbatches": ["halve_budget", "in_micro_batches", "plan_micro_batches"],
        "scorer": ["Scorer"],
    },
)
