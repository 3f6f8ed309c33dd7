"""A good recipe, and mistakes in it with what is said of each."""

from __future__ import annotations

GOOD = {
    "objective": {"name": "dpo", "beta": 0.2},
    "model": {"config": {"model_type": "llama"}, "tokenizer": {"train": "bpe", "vocab_size": 300}},
    "data": {"name": "hh", "path": "toy", "held_out_fraction": 0.2},
    "tokens": {"max_length": 128, "max_prompt_length": 64},
    "train": {
        "batch_size": 4, "optimizer": {"name": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.99]},
        "schedule": {"name": "linear", "warmup_steps": 3}, "max_grad_norm": 1.0, "shuffle": True,
    },
    "eval": {"every": 5, "replies": {"num_prompts": 2}},
    "seed": 1,
}  # fmt: skip

MISTAKES = [
    ("seed: 1", "sed: 1", "recipe.yaml:34:1: sed: no such field; did you mean 'seed'?"),
    ("eval:", "evaluation:", "evaluation: no such field; expected one of name, plugins, objective, model, data"),
    ("num_prompts: 2", "num_promts: 2", "eval.replies.num_promts: no such field; did you mean 'num_prompts'?"),
    ("batch_size: 4", "batch_size: 0", "train.batch_size: 0 is out of bounds; expected at least 1"),
    ("batch_size: 4", "batch_size: many", "train.batch_size: 'many' is not a whole number"),
    ("learning_rate: 0.001", "learning_rate: -0.001", "train.optimizer.learning_rate: -0.001 is out of bounds"),
    ("learning_rate: 0.001", "lr: 0.001", "train.optimizer.learning_rate: missing"),
    ("name: adamw", "name: adamv", "no optimizer is called 'adamv'; did you mean 'adamw'?"),
    ("name: linear", "name: liner", "train.schedule.name: 'liner' is not an option; expected one of constant, linear, cosine; did you mean 'linear'?"),
    ("name: dpo", "name: dop", "objective.name: no objective is called 'dop'; did you mean 'dpo'?"),
    ("beta: 0.2", "beta: 0", "objective.beta: 0 is out of bounds; expected above 0"),
    ("beta: 0.2", "bets: 0.2", "objective.bets: no such field; did you mean 'beta'?"),
    ("beta: 0.2", "beta: .inf", "objective.beta: inf is not a finite number"),
    ("name: hh", "name: hhh", "data.name: no data source is called 'hhh'; did you mean 'hh'?"),
    ("held_out_fraction: 0.2", "held_out_fraction: 1", "data.held_out_fraction: 1 is out of bounds; expected below 1"),
    ("max_prompt_length: 64", "max_prompt_length: 128", "tokens: max_prompt_length must be below max_length (128)"),
    ("model_type: llama", "hidden_size: 8", "model: config needs a model_type, for example llama"),
    ("shuffle: true", "shuffle: perhaps", "train.shuffle: 'perhaps' is not true or false"),
    ("train: bpe", "train: bpee", "model.tokenizer.train: 'bpee' is not an option; expected one of bpe, bytes; did you mean 'bpe'?"),
]  # fmt: skip
"""Text of the good recipe, the text in its place, and a part of the error."""
