"""Former spellings of recipe keys and values, for errors that name the present one."""

from __future__ import annotations

from collections.abc import Sequence

RENAMED = {
    "train.tokens_per_batch": "train.micro_batch_tokens",
    "train.layout=forest": "padded",
    "eval.samples": "eval.replies.num_prompts",
    "eval.sample_tokens": "eval.replies.max_new_tokens",
    "sampling": "samples",  # of a comparison
    "data.held_out": "data.held_out_fraction",
    "data.train_rows": "data.max_train_rows",
    "data.pairs=best_worst": "extremes",
    "data.pairs=neighbours": "adjacent",  # codespell:ignore neighbours
    "data.path=sample": "toy",
    "data source=table": "files",
    "data source=sample": "toy",
    "judge=sample": "toy",
    "metric=normalised_accuracy": "normalized_accuracy",
    "modifier=length_normalised": "length_normalization",
    "modifier=public_length": "length_desensitization",
    "modifier=down_sampled": "length_downsampling",
    "modifier=likelihood_weight": "wpo_weighting",
    "label_smoothing.share": "label_smoothing.epsilon",
    "margin.reward": "margin.value",
}
"""Former spelling -> present one, of a key (`section.key`), of an option or a free text (`section.key=value`), and of a
name (`kind=name`). A field of a modifier stands under the modifier's name."""


def new_key(section: Sequence[str], key: str, component: str = "") -> str:
    """Return the present path of a renamed key of a section or component, or ""."""
    name = RENAMED.get(f"{component}.{key}", "").removeprefix(f"{component}.")
    return ".".join((*section, name)) if name else RENAMED.get(".".join((*section, key)), "")


def new_value(at: Sequence[str], value: object) -> str:
    """Return the present spelling of a value at path `at`, or ""."""
    return RENAMED.get(f"{'.'.join(at)}={value}", "")


def new_name(kind: str, name: str) -> str:
    """Return the present name of a component of this kind, or ""."""
    return RENAMED.get(f"{kind}={name}", "")
