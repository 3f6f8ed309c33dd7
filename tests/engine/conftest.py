import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.data.shapes import with_mismatched
from alignzoo.engine import Engine, make_optimizer
from alignzoo.examples import Supply
from alignzoo.progress import Screen
from alignzoo.recipe.schema import TrainConfig
from alignzoo.reference import score_reference
from alignzoo.scoring import Scorer
from alignzoo.tree import Branch, Tree, Trees

VOCABULARY = 61


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def random_pairs(rows: int, seed: int = 0) -> Trees:
    rng = np.random.default_rng(seed)

    def some(low: int, high: int) -> np.ndarray:
        return rng.integers(1, VOCABULARY, rng.integers(low, high)).astype(np.int32)

    trees = [Tree(f"row {i}", some(1, 24), (Branch(some(2, 16), i % 2), Branch(some(1, 20)))) for i in range(rows)]
    columns = {"desirable": np.tile([1.0, 0.0], rows), "score": np.tile([1.0, 0.25], rows)}
    return Trees.build(trees, {name: values.astype(np.float32) for name, values in columns.items()})


@pytest.fixture
def make_engine(tmp_path):
    """Build an engine over random pairs and a tiny Llama: `make_engine(objective, tokens_per_batch=64, ...)`."""

    def make(objective, rows=32, seed=0, layout="forest", trees=None, **train) -> Engine:
        config = TrainConfig.model_validate(
            {"batch_size": 8, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "max_grad_norm": None} | train
        )
        model, trees = tiny_llama(), trees if trees is not None else random_pairs(rows)
        scorer = Scorer(model, layout)
        reference = live = None
        if objective.mismatched:
            trees = with_mismatched(trees, 512)
        if objective.reference in ("live", "moving"):
            live = Scorer(tiny_llama(seed=1).requires_grad_(False), layout)
        elif objective.reference != "none":
            with torch.no_grad():  # a reference that differs from the policy, so that every term of a loss is at work
                reference = score_reference(
                    Scorer(tiny_llama(seed=1), layout), trees, tmp_path / "cache", 512, Screen(quiet=True)
                )
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        optimizer = make_optimizer(config.optimizer, model)
        supply = Supply(objective, trees, reference, live, seed)
        return Engine(supply, config, accelerator, scorer, optimizer, steps=100, seed=seed)

    return make
