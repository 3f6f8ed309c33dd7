"""Held-out preference accuracy, margins and samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.data.rows import Row
from alignzoo.examples import as_example, as_pair, branches_of, reference_sums
from alignzoo.forest import lay, plan, sequences
from alignzoo.metrics import Tally, correct, describe, standard_error
from alignzoo.objective import Objective
from alignzoo.progress import Screen
from alignzoo.reference import Reference
from alignzoo.scoring import Scorer, per_sequence
from alignzoo.tree import Trees


@torch.no_grad()
def score_trees(scorer: Scorer, trees: Trees, budget: int, screen: Screen, what: str) -> tuple[Tensor, Tensor]:
    """Summed log-probs and lengths of every sequence, (S,) each on the CPU, in the order of the trees' branches."""
    device = next(scorer.parameters()).device
    first = np.concatenate([[0], np.cumsum(np.diff(trees.trees) - 1)])
    log_prob, length = torch.zeros(int(first[-1])), torch.zeros(int(first[-1]))
    with screen.bar(what, len(trees)) as advance:
        everything = list(trees)
        for part in plan(everything, budget, scorer.layout):
            forest = lay([everything[i] for i in part], scorer.layout).to(device)
            at = torch.from_numpy(np.concatenate([np.arange(first[i], first[i + 1]) for i in part]))
            log_prob[at] = per_sequence(scorer(forest), forest).cpu()
            length[at] = forest.offsets.diff().float().cpu()
            advance(len(part), "")
    return log_prob, length


def evaluate(
    scorer: Scorer, objective: Objective, trees: Trees, reference: Reference | None, budget: int, screen: Screen,
    at_start: bool = False,
) -> dict[str, float]:  # fmt: skip
    """The held-out metrics, means over all rows whatever the budget.

    `preference_accuracy` is by the objective's implicit reward (ties count one half), `likelihood_accuracy` by the
    plain log-prob of the whole completion. `at_start` says that the policy still is the reference: its log-probs are
    then the reference's own, so that every pair is the tie that it is by definition, whatever two forwards round to.
    """
    ref = reference_sums(reference, range(len(trees)), 2)
    if at_start and ref is not None:
        log_prob = ref
        length = torch.tensor([branch.scored for _, branch in sequences(trees)], dtype=torch.float32)
    else:
        log_prob, length = score_trees(scorer, trees, budget, screen, "evaluation")
    pair = as_pair(log_prob, length, ref)
    values = describe(objective, pair)
    accuracy = values.pop("accuracy")
    result = {name: float(value.double().mean()) for name, value in values.items()}
    step = 2 // branches_of(objective)
    example = as_example(objective, log_prob[::step], length[::step], None if ref is None else ref[::step])
    tally = Tally()
    tally.add(objective, example, objective.loss(example))
    return {
        "n": len(trees),
        "loss": tally.means()["loss"],
        "preference_accuracy": float(accuracy.mean()),
        "preference_accuracy_se": standard_error(accuracy),
        "likelihood_accuracy": float(correct(pair.chosen.log_prob, pair.rejected.log_prob).mean()),
    } | result


@torch.no_grad()
def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[np.ndarray], most: int
) -> list[str]:
    """The model's most likely continuation of each prompt (token ids), up to `most` new tokens."""
    answers = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt).long()[None].to(model.device)
        out = model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        answers.append(str(tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)))
    return answers


def sample_rows(held_out: int, wanted: int) -> list[int]:
    """Evenly spaced held-out rows: the same ones for every run on the same data."""
    wanted = min(wanted, held_out)
    return [round((i + 0.5) * held_out / wanted - 0.5) for i in range(wanted)]


def as_text(row: Row, branch: int) -> str:
    """A row's completion as plain text, for people."""
    text = row.completions[branch].text
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)
