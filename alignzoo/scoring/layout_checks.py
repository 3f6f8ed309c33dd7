"""Checks of a layout: log-probs, leaks between sequences, gradients, and causality.

Magnitudes are compared in float32 with the model's own forward, one sequence at a time. Leaks are searched in the type
and precision of the run, to the bit.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.core.errors import first_line
from alignzoo.core.memory import handle_out_of_memory, out_of_memory
from alignzoo.data.trees import Branch, Tree
from alignzoo.models.oracle import NARROW, in_float32, limit_of, sequence_log_probs, sequence_logits
from alignzoo.scoring.expert_choices import Choice, Choices, Repeated, Spread
from alignzoo.scoring.forest import PACKED, lay_out
from alignzoo.scoring.microbatches import halve_budget, plan_micro_batches
from alignzoo.scoring.scorer import Scorer

CAUSAL_LIMIT = 1e-5
"""Largest change of an earlier log-prob, in nats, that is rounding in float32. Equal shapes mostly give exactly 0."""


@dataclass(frozen=True, slots=True)
class OwnScores:
    """Scores of one sequence by the model's own forward, and the experts chosen.

    Scores are log-probs (n,) or a reward (1,).
    """

    values: Tensor
    choices: list[Choice]


def own_scores(scorer: Scorer, tree: Tree, branch: Branch) -> OwnScores:
    """Score one sequence by the model's own forward, with its own attention."""
    with Choices() as choices:
        if scorer.scalar:
            values = sequence_logits(scorer.model, np.concatenate([tree.prompt, branch.tokens])).float()
        else:
            values = sequence_log_probs(scorer.model, tree.prompt, branch)
    return OwnScores(values, choices.made)


@torch.no_grad()
def noncausal_change(model: PreTrainedModel, tree: Tree, branch: Branch) -> float | None:
    """Return the largest change of earlier log-probs, in nats, when later tokens change.

    None if the change is rounding. The later half of the sequence is replaced, and in a second forward one token less.
    Attention in blocks that see all of themselves can't end at both places. The shapes and the experts stay the same.
    """
    tokens = np.concatenate([tree.prompt, branch.tokens])
    ids = np.unique(tokens)
    if len(tokens) < 4 or len(ids) < 2:
        return None
    other = ids[(np.searchsorted(ids, tokens) + 1) % len(ids)]
    with Choices() as choices:
        before = sequence_logits(model, tokens)
    worst = 0.0
    for cut in (len(tokens) // 2, len(tokens) // 2 + 1):
        with Spread([choices.made], [np.arange(len(tokens))]):
            after = sequence_logits(model, np.concatenate([tokens[:cut], other[cut:]]))
        earlier = slice(max(0, cut - 64), cut)
        one, two = (logits[earlier].double().log_softmax(-1) for logits in (before, after))
        worst = max(worst, float((one - two).abs().nan_to_num(0.0).max()))
    return worst if worst > (limit_of(model) if model.dtype in NARROW else CAUSAL_LIMIT) else None


@torch.no_grad()
def disagreement(scorer: Scorer, sample: list[Tree], want: list[OwnScores], wide: bool) -> str | None:
    """Compare a layout's scores with the model's own; None if they agree.

    The layout uses the experts that the model's own forward chose.
    """
    counts = np.cumsum([0, *(len(tree.branches) for tree in sample)])
    worst, budget, left = 0.0, sum(tree.slots for tree in sample), list(range(len(sample)))

    def halve(error: BaseException) -> None:
        nonlocal budget
        budget = halve_budget(budget, [sample[i] for i in left], error)

    with in_float32(scorer.model, wide):
        limit = limit_of(scorer.model)
        while left:
            part = [left[i] for i in plan_micro_batches([sample[i] for i in left], budget, scorer.layout)[0]]
            own = [want[s] for i in part for s in range(counts[i], counts[i + 1])]
            with handle_out_of_memory(halve):
                try:
                    forest = lay_out([sample[i] for i in part], scorer.layout).to(own[0].values.device)
                    spread = nullcontext() if scorer.rules else Spread([one.choices for one in own], forest.paths())
                    with spread:
                        got = scorer(forest)["scalar" if scorer.scalar else "log_prob"].flatten()
                except Exception as error:  # each model fails on a mask in its own way; the reason is kept and shown
                    return error_text("forward", error)
                apart = (got - torch.cat([one.values for one in own])).abs()
                worst = max(worst, float(apart.nan_to_num(math.inf).max()))
                left = [i for i in left if i not in part]
    return None if worst <= limit else f"log-probs differ by up to {worst:.2g} from the one-sequence forward"


@torch.no_grad()
def leak(scorer: Scorer, sample: list[Tree], device: torch.device, precision: str) -> str | None:
    """Search for a sequence whose log-probs change with others' tokens or with padding.

    Returns None without any. Sequences are split in two by each bit of their number, so that any two are separated
    once. One half keeps its tokens and all others are replaced. Shapes and experts stay the same, so that no change is
    rounding.
    """
    few = [sample[i] for i in dict.fromkeys([0, min(1, len(sample) - 1), max(len(sample) - 2, 0), len(sample) - 1])]
    forest = lay_out(few, scorer.layout).to(device)
    paths, ids = forest.paths(), np.unique(forest.tokens.cpu().numpy())
    if len(ids) < 2:
        return None
    slots = forest.tokens.flatten().cpu().numpy()
    other = ids[(np.searchsorted(ids, slots) + 1) % len(ids)]
    name, offsets = "scalar" if scorer.scalar else "log_prob", forest.offsets.tolist()
    scorer.precision = precision
    try:
        with Choices() as choices:
            before = scorer(forest)[name]
        if not bool(before.isfinite().all()):
            return "log-probs are not finite in the type of the run"
        for bit in range(max(1, (len(paths) - 1).bit_length())):
            for value in (0, 1):
                kept = [s for s in range(len(paths)) if s >> bit & 1 == value]
                if not kept:
                    continue
                tokens = other.copy()
                visible = np.concatenate([paths[s] for s in kept])
                tokens[visible] = slots[visible]
                changed = replace(forest, tokens=torch.from_numpy(tokens).to(device).view_as(forest.tokens))
                with Repeated(choices.made):
                    after = scorer(changed)[name]
                for s in kept:
                    own = slice(s, s + 1) if scorer.scalar else slice(offsets[s], offsets[s + 1])
                    if not torch.equal(before[own], after[own]):
                        change = float((before[own] - after[own]).abs().max())
                        return f"a sequence's log-probs change by {change:.2g} with tokens outside the sequence"
    except Exception as error:
        return error_text("forward", error)
    finally:
        scorer.precision = "float32"
    return None


def gradient_difference(scorer: Scorer, sample: list[Tree], device: torch.device, precision: str) -> str | None:
    """Compare FlexAttention's gradient with that of tree attention; None if they agree.

    The gradient is that of the first parameter, which every layer's backward contributes to, in the run's precision.
    """
    first = next((parameter for parameter in scorer.model.parameters() if parameter.requires_grad), None)
    if first is None:
        return None
    forest, found = lay_out(sample, PACKED).to(device), []
    scorer.precision = precision
    try:
        for scorer.flex in (False, True):
            values = scorer(forest)["scalar" if scorer.scalar else "log_prob"]
            found.append(torch.autograd.grad(values.square().sum(), first)[0].float())
    except Exception as error:
        return error_text("backward", error)
    finally:
        scorer.precision = "float32"
    worst = float((found[1] - found[0]).norm() / found[0].norm())
    low = precision == "bfloat16" or first.dtype == torch.bfloat16
    return None if worst <= (0.1 if low else 1e-3) else f"its gradient differs by {worst:.2g} from that tree by tree"


def error_text(phase: str, error: Exception) -> str:
    """Describe an error of the model in one line. Raises it again where memory ran out."""
    if out_of_memory(error):
        raise error
    return f"the model's {phase} raised {type(error).__name__}: {first_line(error)[:120]}"
