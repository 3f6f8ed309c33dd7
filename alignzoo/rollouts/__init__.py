"""Rollouts: draw from the policy, judge, select, score, keep on disk, and make batches.

A rollout is data that depends on the policy at a step. The flow is one way: prompts, draws, rewards, rows, and then the
step of any other run, which never learns where its rows are from.
"""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "calendar": ["Calendar", "Turn"],
        "draw": ["Draws"],
        "prompts": ["Prompts"],
        "rewards": ["Judged"],
        "source": ["Rollouts"],
    },
)
