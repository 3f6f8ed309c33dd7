"""Which layout a model can be trusted with, found out by scoring a few sequences both ways before a run."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alignzoo.core.errors import UserError, first_line
from alignzoo.core.memory import out_of_memory
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models.attention import use_tree_attention
from alignzoo.models.oracle import NARROW, in_float32, limit_of, sequence_log_probs, sequence_logits, sharded
from alignzoo.models.probes import longest_by_tree, probe, turning_points
from alignzoo.scoring.expert_choices import Choice, Choices, Repeated, Spread
from alignzoo.scoring.forest import LAYOUTS, PACKED, PLAIN, lay_out, sequences
from alignzoo.scoring.microbatches import halve_budget, plan_micro_batches
from alignzoo.scoring.scorer import Scorer

HEADS = ((False, False), (True, False), (True, True))
"""Whether logits come from the model's own forward, and whether every sequence has a forward of its own."""

CHECK_VERSION = 1
"""Of the check below, in the key of the reference cache: count it up when the check refuses what it let pass."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What was chosen, and why in words that are printed and kept in the run folder."""

    used: str
    reason: str


def choose_layout(scorer: Scorer, trees: Trees, asked: str) -> Layout:
    """Set `scorer.layout` (and its head) to the fastest way that agrees with the model's own forward.

    A way is taken when the log-probs of the probed rows agree, compared in float32, and when no sequence's log-probs
    depend on a token that it may not see, compared to the bit in the type and precision of the run.
    Raises UserError when the layout that was asked for by name disagrees, or when no layout agrees, and RunFailed when
    memory is too little for a single row.
    """
    model, precision = scorer.model, scorer.precision
    lengths = longest_by_tree(trees)
    if sharded(model) and any(lengths.min() <= rule.threshold < lengths.max() for rule in scorer.rules):
        raise UserError(
            f"rotary frequencies depend on the length, and rows have {lengths.min()} to {lengths.max()} tokens",
            where="tokens.max_length", expected=f"at most {min(rule.threshold for rule in scorer.rules)} with shards",
        )  # fmt: skip
    sample = probe(trees, turning_points(model.config))
    scorer.precision = "float32"  # compare masks, not the rounding of autocast
    try:
        for wide in (True, False) if model.dtype in NARROW else (False,):
            try:
                return _choose(scorer, sample, asked, precision, wide)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not wide or not out_of_memory(error):
                    halve_budget(1, sample, error)
    finally:
        scorer.precision = precision
    raise AssertionError


def _choose(scorer: Scorer, sample: list[Tree], asked: str, precision: str, wide: bool) -> Layout:
    use_tree_attention(scorer.model, on=False)
    with in_float32(scorer.model, wide):
        want = [_own(scorer, tree, branch) for tree, branch in sequences(sample)]
    device = want[0].values.device
    refused: list[str] = []
    ways = [(layout, False) for layout in (LAYOUTS if asked == "auto" else [asked])]
    if scorer.packs and (PACKED, False) in ways and has_flex(device):
        ways.insert(ways.index((PACKED, False)), (PACKED, True))
    for layout, flex in ways:
        name = "FlexAttention" if flex else layout
        if layout == PACKED and not scorer.packs:
            refused.append(f"{layout} refused: the model's attention can't be told of trees")
            continue
        for whole_head, alone in HEADS if layout == PLAIN and not sharded(scorer.model) else HEADS[:2]:
            scorer.layout, scorer.whole_head, scorer.flex, scorer.alone = layout, whole_head, flex, alone
            problem = _disagreement(scorer, sample, want, wide)
            if problem is None and not alone:
                problem = _leak(scorer, sample, device, precision)
            if problem is None and flex:
                problem = _other_gradient(scorer, sample, device, precision)
            if problem is None:
                how = ", with FlexAttention" if flex else ""
                how += " (logits from the model's own forward)" if whole_head else ""
                how += ", each sequence in a forward of its own" if alone else ""
                why = "; ".join(refused) or f"agrees with the one-sequence forward on {len(want)} sequences"
                return Layout(layout, why + how)
        refused.append(f"{name} refused: {problem}")
    use_tree_attention(scorer.model, on=False)
    raise UserError(
        f"{type(scorer.model).__name__} can't be scored: {'; '.join(refused)}",
        hint="" if asked == "auto" else "train.layout: auto chooses a layout that agrees",
    )


@dataclass(frozen=True, slots=True)
class Own:
    """One sequence by the model's own forward: log-probs or a reward, and the experts chosen."""

    values: Tensor
    choices: list[Choice]


def _own(scorer: Scorer, tree: Tree, branch: Branch) -> Own:
    with Choices() as choices:
        if scorer.scalar:
            values = sequence_logits(scorer.model, np.concatenate([tree.prompt, branch.tokens])).float()
        else:
            values = sequence_log_probs(scorer.model, tree.prompt, branch)
    return Own(values, choices.made)


def has_flex(device: torch.device) -> bool:
    """Whether FlexAttention has kernels with a backward there."""
    return device.type == "cuda"


def _other_gradient(scorer: Scorer, sample: list[Tree], device: torch.device, precision: str) -> str | None:
    """What FlexAttention's backward does that is not what attention tree by tree does: of the first parameter, so that
    every layer is gone through, in the precision of the run."""
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
        return _words("backward", error)
    finally:
        scorer.precision = "float32"
    worst = float((found[1] - found[0]).norm() / found[0].norm())
    low = precision == "bfloat16" or first.dtype == torch.bfloat16
    return None if worst <= (0.1 if low else 1e-3) else f"its gradient differs by {worst:.2g} from that tree by tree"


def _words(what: str, error: Exception) -> str:
    """Running out of memory is no refusal, and is raised again."""
    if out_of_memory(error):
        raise error
    return f"the model's {what} raised {type(error).__name__}: {first_line(error)[:120]}"


@torch.no_grad()
def _disagreement(scorer: Scorer, sample: list[Tree], want: list[Own], wide: bool) -> str | None:
    """By how much a layout's log-probs differ from the one-sequence forward's, experts as chosen there."""
    counts = np.cumsum([0, *(len(tree.branches) for tree in sample)])
    worst, budget = 0.0, sum(tree.slots for tree in sample)
    with in_float32(scorer.model, wide):
        limit = limit_of(scorer.model)
        left = list(range(len(sample)))
        while left:
            part = [left[i] for i in plan_micro_batches([sample[i] for i in left], budget, scorer.layout)[0]]
            own = [want[s] for i in part for s in range(counts[i], counts[i + 1])]
            try:
                forest = lay_out([sample[i] for i in part], scorer.layout).to(own[0].values.device)
                spread = nullcontext() if scorer.rules else Spread([one.choices for one in own], forest.paths())
                with spread:
                    got = scorer(forest)["scalar" if scorer.scalar else "log_prob"]
            except Exception as error:  # any model may fail on a mask in its own way; the reason is kept and shown
                if not out_of_memory(error):
                    return _words("forward", error)
                budget = halve_budget(budget, [sample[i] for i in left], error)
                continue
            worst = max(worst, float((got - torch.cat([one.values for one in own])).abs().nan_to_num(math.inf).max()))
            left = [i for i in left if i not in part]
    return None if worst <= limit else f"log-probs differ by up to {worst:.2g} from the one-sequence forward"


@torch.no_grad()
def _leak(scorer: Scorer, sample: list[Tree], device: torch.device, precision: str) -> str | None:
    """A sequence whose log-probs change with tokens that it may not see: other sequences' and padding.

    The sequences are halved by each bit of their number, so that any two are parted once. One half keeps its tokens,
    all others are replaced, and the shapes and the experts stay as they were: what changes then is no rounding.
    """
    few = [sample[i] for i in dict.fromkeys([0, min(1, len(sample) - 1), max(len(sample) - 2, 0), len(sample) - 1])]
    forest = lay_out(few, scorer.layout).to(device)
    paths, ids = forest.paths(), np.unique(forest.tokens.cpu().numpy())
    if len(ids) < 2:
        return None
    flat = forest.tokens.flatten().cpu().numpy()
    other = ids[(np.searchsorted(ids, flat) + 1) % len(ids)]
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
                seen = np.concatenate([paths[s] for s in kept])
                tokens[seen] = flat[seen]
                changed = replace(forest, tokens=torch.from_numpy(tokens).to(device).view_as(forest.tokens))
                with Repeated(choices.made):
                    after = scorer(changed)[name]
                for s in kept:
                    own = slice(s, s + 1) if scorer.scalar else slice(offsets[s], offsets[s + 1])
                    if not torch.equal(before[own], after[own]):
                        far = float((before[own] - after[own]).abs().max())
                        return f"a sequence's log-probs change by {far:.2g} with tokens that it may not see"
    except Exception as error:
        return _words("forward", error)
    finally:
        scorer.precision = "float32"
    return None
