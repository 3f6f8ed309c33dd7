"""Which layout a model can be trusted with, found out by scoring a few sequences both ways before a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignzoo.errors import UserError
from alignzoo.forest import LAYOUTS, PACKED, lay, sequences
from alignzoo.memory import halved, out_of_memory
from alignzoo.scoring import Scorer
from alignzoo.tree import Branch, Tree, Trees

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float64: 1e-6}
"""Largest difference of a token's log-prob that is rounding. A mask that a model ignores is off by whole nats."""

CHECK_VERSION = 1
"""Of the check below, in the key of the reference cache: count it up when the check refuses what it let pass."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What was chosen, and why in words that are printed and kept in the run folder."""

    used: str
    reason: str


def choose_layout(scorer: Scorer, trees: Trees, asked: str) -> Layout:
    """Set `scorer.layout` (and its head) to the fastest way that agrees with the model's own forward.

    Raises UserError when the layout that was asked for by name disagrees, or when no layout agrees, and RunFailed when
    memory is too little for a single row.
    """
    precision, scorer.precision = scorer.precision, "float32"  # compare masks, not the rounding of autocast
    sample = _probe(trees)
    try:
        while True:
            try:
                return _choose(scorer, sample, asked, precision)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                halved(1 if len(sample) == 1 else sum(tree.slots for tree in sample), sample, error)
            sample = sample[1:]
    finally:
        scorer.precision = precision


def _choose(scorer: Scorer, sample: list[Tree], asked: str, precision: str) -> Layout:
    want = _oracle(scorer, sample)
    tolerance = TOLERANCE[scorer.model.dtype]
    refused: list[str] = []
    ways = [(layout, False) for layout in (LAYOUTS if asked == "auto" else [asked])]
    if scorer.packs and (PACKED, False) in ways and has_flex(want[0].device):
        ways.insert(ways.index((PACKED, False)), (PACKED, True))
    for layout, flex in ways:
        name = "FlexAttention" if flex else layout
        if layout == PACKED and not scorer.packs:
            refused.append(f"{layout} refused: the model's attention can't be told of trees")
            continue
        for whole_head in (False, True):
            scorer.layout, scorer.whole_head, scorer.flex = layout, whole_head, flex
            problem = _disagreement(scorer, sample, want, tolerance)
            if problem is None and flex:
                problem = _other_gradient(scorer, sample, want[0].device, precision)
            if problem is None:
                how = ", with FlexAttention" if flex else ""
                how += " (logits from the model's own forward)" if whole_head else ""
                why = "; ".join(refused) or f"agrees with the one-sequence forward on {len(want)} sequences"
                return Layout(layout, why + how)
        refused.append(f"{name} refused: {problem}")
    raise UserError(
        f"{type(scorer.model).__name__} can't be scored: {'; '.join(refused)}",
        hint="" if asked == "auto" else "train.layout: auto chooses a layout that agrees",
    )


def _probe(trees: Trees, most: int = 4, slots: int = 2048) -> list[Tree]:
    """The longest tree that fits in `slots`, so that a sliding window is noticed, the shortest, and the first: several,
    so that what one tree sees of another is noticed, and little work."""
    first = range(min(len(trees), 512))
    by_length = sorted(first, key=lambda i: trees[i].slots, reverse=True)
    longest = next((i for i in by_length if trees[i].slots <= slots), by_length[-1])
    return [trees[i] for i in dict.fromkeys([longest, 0, *reversed(by_length)])][:most]


def _oracle(scorer: Scorer, sample: list[Tree]) -> list[Tensor]:
    """Token log-probs by the plain route: the model's own forward, one sequence at a time, nothing of ours."""
    device = next(scorer.model.parameters()).device
    with torch.no_grad():
        return [_one_sequence(scorer, tree.prompt, branch, device) for tree, branch in sequences(sample)]


def _one_sequence(scorer: Scorer, prompt: np.ndarray, branch: Branch, device: torch.device) -> Tensor:
    ids = torch.from_numpy(np.concatenate([prompt, branch.tokens])).long().to(device)
    if scorer.scalar:
        return scorer.model(ids[None], use_cache=False).logits[0].float()
    logits = scorer.model(ids[None], use_cache=False).logits[0]
    first = len(prompt) + branch.scored_from
    return logits[first - 1 : -1].float().log_softmax(-1).gather(1, ids[first:, None])[:, 0]


def has_flex(device: torch.device) -> bool:
    """Whether FlexAttention has kernels with a backward there."""
    return device.type == "cuda"


def _other_gradient(scorer: Scorer, sample: list[Tree], device: torch.device, precision: str) -> str | None:
    """What FlexAttention's backward does that is not what attention tree by tree does: of the first parameter, so that
    every layer is gone through, in the precision of the run."""
    first = next((parameter for parameter in scorer.model.parameters() if parameter.requires_grad), None)
    if first is None:
        return None
    forest, found = lay(sample, PACKED).to(device), []
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
    first_line = (str(error).splitlines() or [""])[0]
    return f"the model's {what} raised {type(error).__name__}: {first_line[:120]}"


def _disagreement(scorer: Scorer, sample: list[Tree], want: list[Tensor], tolerance: float) -> str | None:
    forest = lay(sample, scorer.layout).to(want[0].device)
    try:
        with torch.no_grad():
            got = scorer(forest)["scalar" if scorer.scalar else "log_prob"]
    except Exception as error:  # any model may refuse a mask in its own way; the reason is kept and shown
        return _words("forward", error)
    worst = float((got - torch.cat(want)).abs().max())
    return None if worst <= tolerance else f"log-probs differ by up to {worst:.2g} from the one-sequence forward"
