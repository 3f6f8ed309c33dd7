"""Published losses of online objectives in float64, on recorded draws, with AdamW updates.

Written from the papers and from what TRL states, without alignzoo's or TRL's code. Each sequence is a row of its own, with
its prompt, padded on the right only, where causal attention does not look.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

Values = list[list[Tensor]]
"""A tensor (T,) for each completion of each prompt."""


@dataclass
class Update:
    """What the loss of an update reads: B prompts with G completions each."""

    new: Values
    """log pi of each token."""
    old: Values
    """log pi of each token when the rollout was drawn."""
    ref: Values
    reward: Tensor
    """(B, G)."""
    settings: dict[str, Any]
    clipped: int = 0
    """Values without gradient, because their ratio is past a limit."""

    def standardized(self) -> Tensor:
        """Return (R - mean) / (std + 1e-4), with divisor G - 1; (B, G)."""
        return self.centered() / (self.reward.std(1, keepdim=True) + 1e-4)

    def centered(self) -> Tensor:
        return self.reward - self.reward.mean(1, keepdim=True)

    def surrogate(self, ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
        """Return -min(ratio A, clip(ratio) A)."""
        self.clipped += int((((ratio > 1 + high) & (advantage > 0)) | ((ratio < 1 - low) & (advantage < 0))).sum())
        return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)

    def each(self, value: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], advantage: Tensor) -> list[list[Tensor]]:
        """Return value(new, old, ref, A) of each completion."""
        groups = zip(self.new, self.old, self.ref, advantage, strict=True)
        return [[value(*one) for one in zip(*group, strict=True)] for group in groups]


def grpo(u: Update) -> Tensor:
    """2402.03300, equations 3 and 4."""
    beta, clip = u.settings["beta"], u.settings.get("clip", 0.2)

    def of(new: Tensor, old: Tensor, ref: Tensor, a: Tensor) -> Tensor:
        k3 = (ref - new).exp() - 1 - (ref - new)
        return (u.surrogate((new - old).exp(), a, clip, clip) + beta * k3).mean()

    return mean(u.each(of, u.standardized()))


def dr_grpo(u: Update) -> Tensor:
    """2503.20783: no division by length or deviation."""

    def of(new: Tensor, old: Tensor, ref: Tensor, a: Tensor) -> Tensor:
        return u.surrogate((new - old).exp(), a, 0.2, 0.2).sum() / u.settings["limit"]

    return mean(u.each(of, u.centered()))


def token_sums(u: Update) -> list[list[Tensor]]:
    low, high = u.settings["low"], u.settings["high"]
    return u.each(lambda new, old, ref, a: u.surrogate((new - old).exp(), a, low, high).sum(), u.standardized())


def token_mean(u: Update) -> Tensor:
    """One mean over all tokens of the batch: TRL's dapo and, in one micro-batch, its bnpo."""
    return sum_of(token_sums(u)) / sum(len(one) for group in u.new for one in group)


def token_mean_of_spread(u: Update) -> Tensor:
    """2503.14476, equations 8 and 11: groups of equal rewards are no part of the batch."""
    spread = (u.reward.amax(1) > u.reward.amin(1)).tolist()
    return sum_of(token_sums(u)) / sum(
        len(one) for group, has in zip(u.new, spread, strict=True) if has for one in group
    )


def gspo(u: Update) -> Tensor:
    """2507.18071, equations 5 to 7."""

    def of(new: Tensor, old: Tensor, ref: Tensor, a: Tensor) -> Tensor:
        return u.surrogate((new - old).mean().exp(), a, 3e-4, 4e-4)

    return mean(u.each(of, u.standardized()))


def cispo(u: Update) -> Tensor:
    """2506.13585, equations 4 and 5, with the limit itself as TRL has it."""

    def of(new: Tensor, old: Tensor, ref: Tensor, a: Tensor) -> Tensor:
        return (-(new - old).exp().clamp(max=5.0).detach() * a * new).sum()

    return sum_of(u.each(of, u.standardized())) / sum(len(one) for group in u.new for one in group)


def leave_one_out(u: Update) -> Tensor:
    """2402.14740: reward minus beta times the log-ratio when drawn, against the mean of the others."""
    kl = torch.stack(
        [torch.stack([(a - b).sum() for a, b in zip(*rows, strict=True)]) for rows in zip(u.old, u.ref, strict=True)]
    )
    penalized = u.reward - u.settings["beta"] * kl
    return penalized - (penalized.sum(1, keepdim=True) - penalized) / (penalized.shape[1] - 1)


def rloo(u: Update) -> Tensor:
    """2402.14740: REINFORCE, -A log pi."""
    return mean(u.each(lambda new, old, ref, a: -a * new.sum(), leave_one_out(u)))


def rloo_ratio(u: Update) -> Tensor:
    """TRL's form: -min(rho A, clip(rho) A) with the ratio rho of the whole completion, 1 in a first update."""
    return mean(u.each(lambda new, old, ref, a: u.surrogate((new - old).sum().exp(), a, 0.2, 0.2), leave_one_out(u)))


def sum_of(values: list[list[Tensor]]) -> Tensor:
    return torch.stack([one for group in values for one in group]).sum()


def mean(values: list[list[Tensor]]) -> Tensor:
    return torch.stack([one for group in values for one in group]).mean()


FORMS = {one.__name__: one for one in (grpo, dr_grpo, token_mean, token_mean_of_spread, gspo, cispo, rloo, rloo_ratio)}


def updates(model: Path, form: str, settings: dict[str, Any], rollouts: Sequence[dict], count: int) -> list[dict]:
    """Return loss, gradients by parameter name, and clipped values of each update, from float64 weights of its own."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    start, tokenizer = copy.deepcopy(policy), AutoTokenizer.from_pretrained(model)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    found, epochs = [], count // len(rollouts)
    old: Values = []
    for number in range(count):
        rollout = rollouts[number // epochs]
        prompts = [tokenizer(text)["input_ids"] for text in rollout["prompts"]]
        new = log_probs(policy, prompts, rollout["completions"], settings["temperature"])
        if number % epochs == 0:
            old = [[one.detach() for one in group] for group in new]
            with torch.no_grad():
                ref = log_probs(start, prompts, rollout["completions"], settings["temperature"])
        reward = torch.tensor(rollout["rewards"], dtype=torch.float64).reshape(len(prompts), -1)
        update = Update(new, old, ref, reward, settings)
        loss = FORMS[form](update)
        optimizer.zero_grad()
        loss.backward()
        gradients = {name: one.grad.clone() for name, one in policy.named_parameters()}
        found.append({"loss": float(loss.detach()), "gradients": gradients, "clipped": update.clipped})
        optimizer.step()
    return found


def log_probs(
    model: PreTrainedModel, prompts: Sequence[list[int]], completions: Sequence[list[int]], temperature: float
) -> Values:
    """Return the log-probs of each completion's tokens."""
    each = len(completions) // len(prompts)
    rows = [torch.tensor(prompts[n // each] + own) for n, own in enumerate(completions)]
    logits = model(input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), use_cache=False).logits

    def of(n: int) -> Tensor:
        start, own = len(prompts[n // each]) - 1, torch.tensor(completions[n])
        return (logits[n, start : start + len(own)] / temperature).log_softmax(-1).gather(1, own[:, None])[:, 0]

    return [[of(n) for n in range(b * each, (b + 1) * each)] for b in range(len(prompts))]
