"""Inputs of the speed benchmarks: two shapes of random-weight models, real or synthetic HH rows, and steps on them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.data.sources.hh import HH
from alignzoo.data.splits import read_rows
from alignzoo.data.tokenize import tokenize
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.recipe.schema import TokensConfig, TrainConfig
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.step import Engine

ROOT = Path(__file__).parent.parent
HH_FILES = sorted((ROOT.parent / "shared" / "data").glob("hh_*_test.jsonl.gz"))
SHAPES: dict[str, dict[str, Any]] = {
    "Pythia-70M": {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 6, "num_attention_heads": 8, "max_position_embeddings": 2048, "rotary_pct": 0.25,
    },
    "Llama 4x256": {
        "model_type": "llama", "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 688,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    },
}  # fmt: skip


def build(shape: str) -> PreTrainedModel:
    """A model of that shape, its weights a function of nothing."""
    torch.manual_seed(0)
    fields = dict(SHAPES[shape])
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()


def hh_trees(count: int) -> tuple[list[Tree], str]:
    """Trees of real HH rows in their natural lengths, from every file in turn; of made-up rows of such lengths where
    the files are not there. And what they are."""
    if not HH_FILES:
        return made_up(count, 125, 41, 51), "made-up rows of HH's lengths (../shared/data is not there)"
    rows = []
    for some in zip(*(read_rows(HH(path=str(file))).train[: 2 * count] for file in HH_FILES), strict=False):
        rows += [row for row in some if not any(completion.context for completion in row.completions)]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8192), rows)
    done = tokenize(rows[: 2 * count], tokenizer, TokensConfig(max_length=1024, max_prompt_length=512))
    return list(done.trees)[:count], f"HH test rows of {len(HH_FILES)} files in turn, a BPE of 8,192 trained on them"


def made_up(count: int, prompt: int, chosen: int, rejected: int) -> list[Tree]:
    """Rows of random tokens whose lengths are spread around these means as HH's are."""
    rng = np.random.default_rng(0)

    def some(mean: int) -> np.ndarray:
        length = int(np.clip(rng.gamma(2.0, mean / 2), 4, 8 * mean))
        return rng.integers(2, 8000, length).astype(np.int32)

    return [Tree(f"row-{i}", some(prompt), (Branch(some(chosen)), Branch(some(rejected)))) for i in range(count)]


class UniformReference:
    """A reference that gives every token the same probability, as random weights about do."""

    def __init__(self, trees: Trees, vocabulary: int) -> None:
        self.trees, self.each = trees, -float(np.log(vocabulary))

    def tokens(self, row: int, branch: int) -> np.ndarray:
        return np.full(self.trees[row].branches[branch].scored, self.each, np.float32)


@dataclass
class Bench:
    """An engine that takes DPO steps on some trees."""

    shape: str
    trees: list[Tree]
    batch: int
    precision: str = "float32"
    layout: str = "packed"
    budget: int = 4096

    def __post_init__(self) -> None:
        self.model = build(self.shape)
        self.built = Trees.build(self.trees)
        config = TrainConfig.model_validate({
            "batch_size": self.batch, "shuffle": False, "precision": self.precision, "micro_batch_tokens": self.budget,
            "optimizer": {"name": "adamw", "learning_rate": 1e-6},
        })  # fmt: skip
        self.scorer = Scorer(self.model, self.layout, self.precision)
        reference: Any = UniformReference(self.built, SHAPES[self.shape]["vocab_size"])
        supply = BatchBuilder(DPO(beta=0.1), self.built, reference)
        optimizer = make_optimizer(config.optimizer, self.model)
        self.engine = Engine(supply, config, Ranks(), self.scorer, optimizer, 10**6, 0)
        self.done = 0
        self.losses: list[float] = []

    def step(self) -> float:
        """Seconds of the next step."""
        began = time.perf_counter()
        metrics, _ = self.engine.step(self.done)
        taken = time.perf_counter() - began
        self.losses.append(metrics["loss"])
        self.done += 1
        return taken

    def rows(self, step: int) -> list[Tree]:
        """The trees of a step."""
        place = step % (len(self.trees) // self.batch)
        return self.trees[place * self.batch : (place + 1) * self.batch]


def spread(values: list[float], digits: int = 2) -> str:
    """median (least to most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
