"""Embedded toy data: an HH-style preference dataset generated from a seeded grammar."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "chats": ["CHATS_VERSION", "LOOK_UP", "conversations", "tool_pairs"],
        "generate": ["ROWS", "VERSION", "rows"],
        "ground_truth": ["ground_truth_reward"],
        "reviews": ["REVIEWS_VERSION", "labeled_reviews"],
        "steps": ["STEPS_VERSION", "step_pairs"],
    },
)
