"""Choice, before a run, of the fastest layout that agrees with the model's own forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignzoo.core.errors import UserError
from alignzoo.core.memory import handle_out_of_memory
from alignzoo.data.trees import Tree, Trees
from alignzoo.models.attention import use_tree_attention
from alignzoo.models.oracle import NARROW, in_float32, sharded
from alignzoo.models.probes import longest_by_tree, probe, turning_points
from alignzoo.scoring.forest import LAYOUTS, PACKED, PLAIN, sequences
from alignzoo.scoring.layout_checks import disagreement, gradient_difference, leak, noncausal_change, own_scores
from alignzoo.scoring.microbatches import halve_budget
from alignzoo.scoring.scorer import Scorer

HEADS = ((False, False), (True, False), (True, True))
"""Values of `Scorer.whole_head` and `Scorer.alone`, in the order in which they are tried."""

CHECK_VERSION = 3
"""Version of the checks, part of the reference cache's key. Raise it when a check becomes stricter."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The chosen layout and the reason, as printed and kept in the run folder."""

    used: str
    reason: str


def choose_layout(scorer: Scorer, trees: Trees, asked: str) -> Layout:
    """Set a scorer's layout and head to the fastest that agree with the model's own forward.

    A way is taken when the log-probs of the probed rows agree, compared in float32, and when no sequence's log-probs
    depend on tokens outside the sequence, compared to the bit in the type and precision of the run.

    Args:
        scorer: The model. Its layout, head and attention are changed.
        trees: The rows of the run, from which the probed ones are taken.
        asked: `auto`, or the layout that the recipe names.

    Raises:
        UserError: The model is not causal, the named layout disagrees, or no layout agrees.
        RunFailed: Memory is too little for a single row.
    """
    model, precision = scorer.model, scorer.precision
    lengths = longest_by_tree(trees)
    if sharded(model) and any(lengths.min() <= rule.threshold < lengths.max() for rule in scorer.rules):
        raise UserError(
            f"rotary frequencies depend on the length, and rows have {lengths.min()} to {lengths.max()} tokens",
            where="tokens.max_length", expected=f"at most {min(rule.threshold for rule in scorer.rules)} with shards",
        )  # fmt: skip
    sample = probe(trees, turning_points(model.config))

    def again(error: BaseException) -> None:
        """Go on without the float32 copy of the weights."""

    def give_up(error: BaseException) -> None:
        halve_budget(1, sample, error)

    scorer.precision = "float32"  # compare masks, not the rounding of autocast
    try:
        for wide in (True, False) if model.dtype in NARROW else (False,):
            with handle_out_of_memory(again if wide else give_up):
                return _choose(scorer, sample, asked, precision, wide)
    finally:
        scorer.precision = precision
    raise AssertionError


def _choose(scorer: Scorer, sample: list[Tree], asked: str, precision: str, wide: bool) -> Layout:
    use_tree_attention(scorer.model, on=False)
    with in_float32(scorer.model, wide):
        _check_causality(scorer, sample)
        want = [own_scores(scorer, tree, branch) for tree, branch in sequences(sample)]
    device = want[0].values.device
    rejected: list[str] = []
    ways = [(layout, False) for layout in (LAYOUTS if asked == "auto" else [asked])]
    if scorer.packs and (PACKED, False) in ways and has_flex(device):
        ways.insert(ways.index((PACKED, False)), (PACKED, True))
    for layout, flex in ways:
        name = "FlexAttention" if flex else layout
        if layout == PACKED and not scorer.packs:
            rejected.append(f"{layout} rejected: the model's attention can't be replaced")
            continue
        if layout != PLAIN and not scorer.takes_positions:  # it would count a second completion from the first on
            rejected.append(f"{layout} rejected: the model takes no position ids")
            continue
        for whole_head, alone in HEADS if layout == PLAIN and not sharded(scorer.model) else HEADS[:2]:
            scorer.layout, scorer.whole_head, scorer.flex, scorer.alone = layout, whole_head, flex, alone
            problem = disagreement(scorer, sample, want, wide)
            if problem is None and not alone:
                problem = leak(scorer, sample, device, precision)
            if problem is None and flex:
                problem = gradient_difference(scorer, sample, device, precision)
            if problem is None:
                how = ", with FlexAttention" if flex else ""
                how += " (logits from the model's own forward)" if whole_head else ""
                how += ", each sequence in a forward of its own" if alone else ""
                why = "; ".join(rejected) or f"agrees with the one-sequence forward on {len(want)} sequences"
                return Layout(layout, why + how)
        rejected.append(f"{name} rejected: {problem}")
    use_tree_attention(scorer.model, on=False)
    raise UserError(
        f"{type(scorer.model).__name__} can't be scored: {'; '.join(rejected)}",
        hint="" if asked == "auto" else "train.layout: auto chooses a layout that agrees",
    )


def _check_causality(scorer: Scorer, sample: list[Tree]) -> None:
    """Raise UserError where a log-prob depends on later tokens.

    A reward model may read its text both ways.
    """
    if scorer.scalar:
        return
    tree, branch = max(sequences(sample), key=lambda one: len(one[0].prompt) + len(one[1].tokens))
    change = noncausal_change(scorer.model, tree, branch)
    if change is not None:
        raise UserError(
            f"{type(scorer.model).__name__} is not causal: replacing later tokens of row {tree.id} changes log-probs "
            f"of earlier ones by up to {change:.2g} nats",
            where="model",
            expected="a causal language model",
            hint='an encoder such as BERT is causal only with "is_decoder": true in its config.json',
        )


def has_flex(device: torch.device) -> bool:
    """Return True if FlexAttention has kernels with a backward on this device."""
    return device.type == "cuda"
