"""Processes of one job: launch them, join them, exchange objects and tensors."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "gather": ["full_state_dict", "full_tensor", "reshard", "shard_like"],
        "process_group": ["PeerLost", "Ranks", "deal_rows", "share_rows", "together"],
        "spawn": ["run_on"],
    },
)
