"""Steps of any objective on tiny random rows, and what came of them: for the tests, the ranks and the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

ROOT = Path(__file__).parent.parent.parent.parent
sys.path[:0] = [str(ROOT / "plugins" / f"alignzoo-{name}") for name in ("zoo", "distill")]

from alignzoo_distill import GKD, DistiLLM2  # noqa: E402
from alignzoo_zoo import MODIFIERS as ZOO_MODIFIERS  # noqa: E402
from alignzoo_zoo import OBJECTIVES as ZOO  # noqa: E402
from alignzoo_zoo.batch import BetaDPO  # noqa: E402
from alignzoo_zoo.tokenwise import TRDPO  # noqa: E402
from alignzoo_zoo.unpaired import BCO, KTO, APOZeroUnpaired  # noqa: E402

from alignzoo.core.console import Screen  # noqa: E402
from alignzoo.core.distributed.process_group import Ranks  # noqa: E402
from alignzoo.data.mismatched import with_mismatched  # noqa: E402
from alignzoo.data.trees import Branch, Tree, Trees  # noqa: E402
from alignzoo.interfaces.objective import Objective  # noqa: E402
from alignzoo.objectives.builtin.cdpo import CDPO  # noqa: E402
from alignzoo.objectives.builtin.dpo import DPO  # noqa: E402
from alignzoo.objectives.builtin.ipo import IPO  # noqa: E402
from alignzoo.objectives.builtin.sft import SFT  # noqa: E402
from alignzoo.objectives.composition import Modified, Sum  # noqa: E402
from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing  # noqa: E402
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization  # noqa: E402
from alignzoo.objectives.modifiers.margin import Margin  # noqa: E402
from alignzoo.recipe.schema import TrainConfig  # noqa: E402
from alignzoo.reference.scores import score_reference  # noqa: E402
from alignzoo.scoring.batches import BatchBuilder  # noqa: E402
from alignzoo.scoring.scored_batch import NAMED  # noqa: E402
from alignzoo.scoring.scorer import Scorer  # noqa: E402
from alignzoo.training.master_weights import holders_of_gradients  # noqa: E402
from alignzoo.training.optimizers import make_optimizer  # noqa: E402
from alignzoo.training.step import Engine  # noqa: E402

VOCABULARY = 61
ROWS, BATCH = 40, 32
UNLIMITED = 10**6


def compositions() -> dict[str, Objective]:
    """Sums and modified objectives: every modifier, and every way in which the parts of a sum may differ."""
    modifiers = [LengthNormalization(), LabelSmoothing(), Margin(), *(cls() for cls in ZOO_MODIFIERS)]

    def two(first: Objective, second: Objective, weight: float = 0.5) -> Sum:
        return Sum(parts=(first, second), weights=(1.0, weight))

    return {f"dpo with {one.name}": Modified(inner=DPO(), modifiers=(one,)) for one in modifiers} | {
        "bco with length_normalization": Modified(inner=BCO(), modifiers=(LengthNormalization(),)),
        "ipo with two": Modified(inner=IPO(), modifiers=(LengthNormalization(), LabelSmoothing())),
        "dpo + sft": two(DPO(), SFT()),
        "dpo + dpo": two(DPO(), DPO(beta=1.0)),
        "kto + sft": two(KTO(), SFT()),
        "apo_zero_unpaired + sft": two(APOZeroUnpaired(), SFT()),
        "bco + beta_dpo": two(BCO(), BetaDPO()),
        "tr_dpo + sft": two(TRDPO(every=2), SFT()),
        "gkd + gkd": two(GKD(beta=0.1), GKD(beta=1.0)),
        "distillm2 + sft": two(DistiLLM2(), SFT()),
    }


def every() -> dict[str, Objective]:
    """The built-in objectives, the zoo's, and compositions."""
    alone: list[Objective] = [cls() for cls in (SFT, DPO, IPO, CDPO, *ZOO)]
    more = {"sft by sequence": SFT(reduction="sequence"), "ipo by length": IPO(log_ratio="mean")}
    return {one.name: one for one in alone} | more | compositions()


def tiny_llama(
    seed: int = 0, head: str = "language_model", outputs: int = 0, tied: bool = False
) -> PreTrainedModel:  # fmt: skip
    """Random weights, twice as large as usual: log-ratios of two of them are spread over +-4 nats."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            initializer_range=0.04, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_labels=outputs or 1,
            tie_word_embeddings=tied,
        )  # fmt: skip
        cls = LlamaForSequenceClassification if head == "scalar" else LlamaForCausalLM
        return cls(config).eval()


def random_rows(data: str = "pair", rows: int = ROWS, seed: int = 0) -> Trees:
    """Ragged pairs, lists of 2 to 4 (`ranked`), or pairs among single completions (`unpaired`)."""
    dice = np.random.default_rng(seed)

    def some(low: int, high: int) -> np.ndarray:
        return dice.integers(1, VOCABULARY, dice.integers(low, high)).astype(np.int32)

    choice = {"ranked": (2, 3, 4), "unpaired": (1, 2)}.get(data, (2,))
    counts = [choice[i % len(choice)] for i in range(rows)]
    items = [
        Tree(f"row {i}", some(1, 40), tuple(Branch.scored_from(some(3, 30), b % 2 * (i % 3)) for b in range(count)))
        for i, count in enumerate(counts)
    ]
    labels = [[float(i % 4 == 0)] if count == 1 else [1.0, *[0.0] * (count - 1)] for i, count in enumerate(counts)]
    columns = {
        "desirable": labels,
        "score": [np.sort(dice.uniform(0, 3, count))[::-1] for count in counts],
        "margin": [np.full(count, dice.uniform(0, 1)) for count in counts],
    }
    return Trees.build(items, {name: np.concatenate(values).astype(np.float32) for name, values in columns.items()})


def rows_for(objective: Objective, rows: int = ROWS) -> Trees:
    """Rows of the kind that the objective takes; a sum of several kinds gets pairs."""
    kinds = {term.data for _, term in objective.terms} - {"chosen"}
    trees = random_rows(kinds.pop() if len(kinds) == 1 else "pair", rows)
    dice = np.random.default_rng(1)
    for name in dict.fromkeys(name for _, term in objective.terms for name in term.columns):
        values = dice.uniform(0, 1, int(trees.branches(len(trees) - 1)[1])).astype(np.float32)
        trees.columns.setdefault(name, values.round() if name in objective.requirements.flags else values)
    return with_mismatched(trees, 512) if objective.mismatched else trees


def build(
    objective: Objective, cache: Path, trees: Trees | None = None, ranks: Ranks | None = None,
    layout: str = "padded", dtype: torch.dtype = torch.float32, scorer: type[Scorer] = Scorer, **train: Any,
) -> Engine:  # fmt: skip
    """An engine on a tiny Llama. The reference is another one, so that every part of a loss is at work."""
    fields = {"batch_size": BATCH, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "max_grad_norm": None} | train
    config = TrainConfig.model_validate(fields)
    model = tiny_llama(head=objective.head, outputs=len(objective.outputs), tied=objective.language_head).to(dtype)
    trees = rows_for(objective) if trees is None else trees
    other = Scorer(tiny_llama(seed=1).requires_grad_(False).to(dtype), layout)
    reference = live = None
    if objective.reference in ("live", "moving"):
        live = other
    elif objective.reference != "none":
        reference = score_reference(other, trees, cache / f"{dtype} {layout}", 4096, Screen(quiet=True))
    recorded = {}
    for seed, name in enumerate(objective.references, 2):
        guide = Scorer(tiny_llama(seed=seed).requires_grad_(False).to(dtype), layout)
        scores = score_reference(guide, trees, cache / f"{name} {dtype} {layout}", 4096, Screen(quiet=True))
        recorded[NAMED.format(name)] = scores
    supply = BatchBuilder(objective, trees, reference, live, seed=0, recorded=recorded)
    policy = scorer(model, layout)
    optimizer = make_optimizer(config.optimizer, model)
    return Engine(supply, config, ranks or Ranks("cpu"), policy, optimizer, steps=100, seed=0)


@dataclass
class Steps:
    """What a few steps did: each one's gradient and metrics, and what they left."""

    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    states: list[Mapping[str, float]] = field(default_factory=list)


def take(engine: Engine, steps: int = 1) -> Steps:
    """Take the first steps."""
    result = Steps()
    parameters = dict(engine.scorer.model.named_parameters())
    holders = dict(zip(parameters, holders_of_gradients(engine.optimizer), strict=True))

    def record(*_: Any) -> None:
        found = {name: one.grad for name, one in holders.items() if one.grad is not None}
        result.gradients.append({name: gradient.clone() for name, gradient in found.items()})

    hook = engine.optimizer.register_step_pre_hook(record)
    result.metrics = [engine.step(step)[0] for step in range(steps)]
    hook.remove()
    result.parameters = {name: one.detach().clone() for name, one in parameters.items()}
    if engine.builder.live is not None:
        moved = engine.builder.live.model.named_parameters()
        result.parameters |= {f"reference {name}": one.detach().clone() for name, one in moved}
    result.states = list(engine.states)
    return result


def difference(got: Mapping[str, torch.Tensor], want: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of any element, relative to the largest element of its own tensor, over all tensors."""
    assert got.keys() == want.keys()
    return max(float((got[name] - want[name]).abs().max() / want[name].abs().max()) for name in want)
