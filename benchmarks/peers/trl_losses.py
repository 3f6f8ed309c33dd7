"""Record TRL's losses on one fixed micro-batch of four pairs, with the log-probs that went in.

Run as: /path/to/trl-env/python benchmarks/peers/trl_losses.py tests/objectives/peer_trl.json

It needs TRL and not alignzoo; no network, CPU only. Each number comes from the trainer's own tokenization, collator and
`compute_loss`, on tiny random Llamas in float64. TRL's fused LM head keeps its sums in float32 whatever the model's type,
so DPOTrainer and KTOTrainer get a plain log-softmax in its place; the script checks that the two agree to float32. An entry
has `"precision": "float32"` where TRL's own formula casts down; `per_example` is present when the loss of the batch is the
mean of the losses of its pairs taken one at a time, `inputs` where the loss received more than the shared arrays.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
import trl.trainer.dpo_trainer
import trl.trainer.kto_trainer
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

VOCABULARY, PAD, EOS = 64, 0, 1
# prompt, chosen, rejected; a completion's length counts its EOS
LENGTHS = [(3, 5, 7), (6, 12, 9), (4, 8, 7), (5, 4, 6)]
MARGINS = [0.5, 0.0, 1.25, -0.75]
BETA = {"beta": 0.1}
SMOOTHED = {"beta": 0.1, "label_smoothing": 0.1}

DPO: dict[str, dict[str, Any]] = {
    "sigmoid": BETA, "sigmoid_label_smoothing": {"loss_type": "sigmoid", **SMOOTHED}, "hinge": BETA,
    "hinge_beta_1": {"loss_type": "hinge", "beta": 1.0}, "ipo": BETA, "exo_pair": SMOOTHED,
    "exo_pair_0.001": {"loss_type": "exo_pair", "beta": 0.1, "label_smoothing": 1e-3}, "nca_pair": BETA,
    "robust": SMOOTHED, "bco_pair": BETA, "sppo_hard": BETA, "aot": SMOOTHED, "aot_unpaired": SMOOTHED,
    "aot_unsmoothed": {"loss_type": "aot", **BETA}, "aot_unpaired_unsmoothed": {"loss_type": "aot_unpaired", **BETA},
    "apo_zero": BETA, "apo_down": BETA, "discopop": {**BETA, "discopop_tau": 0.05}, "sft": BETA, "sigmoid_norm": BETA,
    "f_reverse_kl": {"loss_type": "sigmoid", **BETA, "f_divergence_type": "reverse_kl"},
    "f_forward_kl": {"loss_type": "sigmoid", **BETA, "f_divergence_type": "forward_kl"},
    "f_js_divergence": {"loss_type": "sigmoid", **BETA, "f_divergence_type": "js_divergence"},
    "f_alpha_divergence": {
        "loss_type": "sigmoid", **BETA, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5,
    },
    "ld_dpo": {"loss_type": "sigmoid", **BETA, "ld_alpha": 0.5},
    "wpo": {"loss_type": "sigmoid", **BETA, "use_weighting": True},
    "mpo": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], **BETA},
}  # fmt: skip
CPO: dict[str, dict[str, Any]] = {
    "cpo": {"loss_type": "sigmoid", **BETA, "cpo_alpha": 1.0},
    "cpo_label_smoothing": {"loss_type": "sigmoid", **SMOOTHED, "cpo_alpha": 1.0},
    "cpo_no_nll": {"loss_type": "sigmoid", **BETA, "cpo_alpha": 0.0},
    "cpo_hinge": {"loss_type": "hinge", **BETA, "cpo_alpha": 0.0},
    "cpo_hinge_nll": {"loss_type": "hinge", **BETA, "cpo_alpha": 1.0},
    "cpo_ipo": {"loss_type": "ipo", **BETA, "cpo_alpha": 0.0},
    "simpo": {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0},
    "cpo_simpo": {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 1.0},
    "alphapo": {"loss_type": "alphapo", "beta": 2.0, "simpo_gamma": 0.5, "alpha": 0.25},
}
KTO: dict[str, dict[str, Any]] = {
    "kto": {"loss_type": "kto", **BETA},
    "kto_weighted": {"loss_type": "kto", **BETA, "desirable_weight": 1.0, "undesirable_weight": 0.5},
    "apo_zero_unpaired": {"loss_type": "apo_zero_unpaired", **BETA},
}
FLOAT32 = {"exo_pair", "exo_pair_0.001", "f_alpha_divergence", "orpo"}
UNSMOOTHED = "label_smoothing is ignored: no DPO loss but exo_pair, robust, aot and aot_unpaired reads it"
SUM_OF_BOTH = "one term a side, added and not averaged"
NLL = "the nll term is the mean over all chosen completion tokens of the batch, not a mean of per-pair means"
SORTED = "sorts {} over the batch and pairs them by rank, so the loss belongs to the batch"
EXO = "qw (log qw - log(1-eps)) + ql (log ql - log eps), qw = sigmoid(beta h), eps = label_smoothing in float32"
NOTES = {
    "sigmoid_label_smoothing": UNSMOOTHED,
    "ipo": "(mean-per-token log-ratio difference - 1/(2 beta))^2",
    "exo_pair": EXO, "exo_pair_0.001": EXO + "; label_smoothing 0 (TRL's default) is refused",
    "nca_pair": "-logsigmoid(rw) - 0.5 logsigmoid(-rw) - 0.5 logsigmoid(-rl), r = beta * log-ratio",
    "robust": "((1-e) -logsigmoid(beta h) - e -logsigmoid(-beta h)) / (1 - 2e)",
    "bco_pair": SUM_OF_BOTH + "; no running-mean delta",
    "sppo_hard": "(log-ratio_w - 1/(2 beta))^2 + (log-ratio_l + 1/(2 beta))^2: " + SUM_OF_BOTH,
    "aot": SORTED.format("chosen-rejected margins of the policy, and of the reference, each"),
    "aot_unpaired": SORTED.format("chosen log-ratios, and rejected ones, each"),
    "aot_unsmoothed": SORTED.format("chosen-rejected margins of the policy, and of the reference, each"),
    "aot_unpaired_unsmoothed": SORTED.format("chosen log-ratios, and rejected ones, each"),
    "apo_zero": "1 - sigmoid(rw) + sigmoid(rl): " + SUM_OF_BOTH,
    "apo_down": "sigmoid(rw) + 1 - sigmoid(rw - rl): " + SUM_OF_BOTH,
    "discopop": "m exp(-x) + (1-m) -logsigmoid(x), m = sigmoid(x/tau), x = beta h (tau divides the beta-scaled margin)",
    "sft": "mean over all chosen completion tokens of the batch, so the loss belongs to the batch",
    "sigmoid_norm": "-logsigmoid(beta * difference of mean-per-token log-ratios)",
    "f_forward_kl": "score = 1 - exp(-log-ratio)",
    "f_js_divergence": "score = log 2 + logsigmoid(log-ratio)",
    "f_alpha_divergence": "score = (exp((a-1) log-ratio) - 1) / (a-1), exponent clamped at 80; fails on float64 inputs",
    "ld_dpo": "tokens past the shorter completion's length count ld_alpha, in policy and reference",
    "wpo": "times w_w * w_l, w = exp(mean_t(logp_t - log_collision_t)), detached; w may exceed 1",
    "mpo": "0.8 sigmoid + 0.2 bco_pair + 1.0 sft",
    "cpo": NLL, "cpo_label_smoothing": NLL, "cpo_hinge_nll": NLL, "cpo_simpo": NLL,
    "cpo_hinge": "relu(1 - beta (logp_w - logp_l)), summed log-probs: SLiC without its regularizer",
    "cpo_ipo": "(mean-per-token logp_w - logp_l - 1/(2 beta))^2, no reference",
    "simpo": "-logsigmoid(beta * mean-logp difference - gamma): gamma is not scaled by beta",
    "alphapo": "r = (1 - p^-alpha)/alpha, p = exp(mean logp); then simpo; the alias leaves alpha at 0 unless it is set",
    "orpo": "nll - beta * mean(logsigmoid(log odds)) on mean log-probs; nll is the token mean over prompt and chosen",
    "kto": "kl = max(0, mean over all 8 mismatched rows of summed log-ratios), detached; mean over the 8 examples",
    "kto_weighted": "weighted losses are divided by the number of examples, not by the weights' sum",
    "apo_zero_unpaired": "mean over the 8 examples (chosen 0-3, rejected 0-3), so half of apo_zero; no kl",
    "reward": "-logsigmoid(rw - rl - margin) averaged, + coefficient * mean((rw + rl)^2)",
}  # fmt: skip


def plain_lm_head(model: LlamaForCausalLM, outputs: tuple[str, ...] = ()) -> None:
    """In the place of `add_fused_lm_head`: the same outputs from the model's own logits, in the model's own type."""

    def forward(
        self: LlamaForCausalLM, *, labels: torch.Tensor, fused_lm_head: bool, **kwargs: Any
    ) -> FusedCausalLMOutput:
        logits = LlamaForCausalLM.forward(self, **kwargs).logits[:, :-1]
        every, labels = logits.log_softmax(-1), labels[:, 1:]
        mask = labels != -100
        target = labels.clamp(min=0).unsqueeze(-1)
        return FusedCausalLMOutput(
            log_probs=every.gather(-1, target).squeeze(-1).masked_fill(~mask, 0),
            log_sum_sq_probs=(2 * every).logsumexp(-1).masked_fill(~mask, 0),
            entropy=-(every.exp() * every).sum(-1), mean_logits=logits.mean(-1),
            is_top1=every.argmax(-1) == target.squeeze(-1),
        )  # fmt: skip

    model.forward = types.MethodType(forward, model)


def build(cls: type, seed: int, dtype: torch.dtype = torch.float64) -> Any:
    """A one-layer Llama whose random weights are large enough that two of them disagree by a few nats a completion.

    The seeds are chosen so that margins have both signs, sorting changes AOT's pairs and KTO's KL estimate is above 0.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD, num_labels=1, initializer_range=0.24,
    )  # fmt: skip
    return cls(config).to(dtype).eval()


def policy(dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    return build(LlamaForCausalLM, 29, dtype)


def reference(dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    return build(LlamaForCausalLM, 129, dtype)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One word a token, a number its own id, so that TRL's text path gives back the ids we drew."""
    words = {"<pad>": PAD, "</s>": EOS} | {str(i): i for i in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def make_pairs() -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> list[int]:
        return torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()

    return [
        {"prompt_ids": draw(p), "chosen_ids": [*draw(c - 1), EOS], "rejected_ids": [*draw(r - 1), EOS]}
        for p, c, r in LENGTHS
    ]


def as_text(pairs: list[dict[str, list[int]]]) -> Dataset:
    """Without EOS, which every trainer adds."""

    def text(ids: list[int]) -> str:
        return " ".join(map(str, ids))

    return Dataset.from_list([{
        "prompt": text(pair["prompt_ids"]), "chosen": " " + text(pair["chosen_ids"][:-1]),
        "rejected": " " + text(pair["rejected_ids"][:-1]),
    } for pair in pairs])  # fmt: skip


@torch.no_grad()
def score(model: LlamaForCausalLM, prompt: list[int], completion: list[int]) -> tuple[list[float], list[float]]:
    """log p of each completion token, and log sum_v p_v^2 where each was drawn: one plain forward of one sequence."""
    every = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    own = every.gather(-1, torch.tensor(completion).unsqueeze(-1)).squeeze(-1)
    return own.tolist(), (2 * every).logsumexp(-1).tolist()


def score_both(rows: list[tuple[list[int], list[int]]]) -> dict[str, list[list[float]]]:
    ours, theirs = ([score(model, *row) for row in rows] for model in (policy(), reference()))
    return {
        "token_log_probs": [logps for logps, _ in ours],
        "ref_token_log_probs": [logps for logps, _ in theirs],
        "log_collision": [collisions for _, collisions in ours],
    }


def make_trainer(trainer: type, config: type, args: dict[str, Any], data: Dataset, *models: Any, rows: int = 4) -> Any:
    common = {
        "output_dir": tempfile.gettempdir(), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": [], "per_device_train_batch_size": rows, "disable_tqdm": True,
    }  # fmt: skip
    names = dict(zip(("model", "ref_model"), models, strict=False))
    return trainer(**names, args=config(**common, **args), processing_class=make_tokenizer(), train_dataset=data)


@torch.no_grad()
def measure(trainer: Any, singly: bool = True) -> dict[str, Any]:
    """The batch's loss, and each row's alone where those average to the batch's."""
    rows = list(trainer.train_dataset)

    def loss(some: list[dict[str, Any]]) -> float:
        return float(trainer.compute_loss(trainer.model, trainer.data_collator(some)))

    mean = loss(rows)
    alone = [loss([row]) for row in rows] if singly else []
    same = alone and abs(sum(alone) / len(alone) - mean) < (1e-12 if trainer.model.dtype == torch.float64 else 1e-5)
    return ({"per_example": alone} if same else {}) | {"mean": mean}


def dpo_losses(data: Dataset, pairs: list[dict[str, list[int]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, settings in DPO.items():
        args = {"loss_type": name, **settings}
        dtype = torch.float32 if name == "f_alpha_divergence" else torch.float64
        trainer = make_trainer(trl.DPOTrainer, trl.DPOConfig, args, data, policy(dtype), reference(dtype))
        assert [{key: row[key] for key in pairs[0]} for row in trainer.train_dataset] == pairs
        yield name, {"trainer": "DPOTrainer", "args": args} | measure(trainer)


def cpo_losses(data: Dataset, pairs: list[dict[str, list[int]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, args in CPO.items():
        trainer = make_trainer(CPOTrainer, CPOConfig, args, data, policy())
        for row, pair in zip(trainer.train_dataset, pairs, strict=True):
            assert row["chosen_input_ids"] == pair["prompt_ids"] + pair["chosen_ids"]
        yield name, {"trainer": "CPOTrainer", "args": args} | measure(trainer)
    trainer = make_trainer(ORPOTrainer, ORPOConfig, BETA, data, policy())
    prompts = [score(policy(), pair["prompt_ids"][:1], pair["prompt_ids"][1:])[0] for pair in pairs]
    inputs = {"inputs": {"prompt_token_log_probs": prompts}}
    yield "orpo", {"trainer": "ORPOTrainer", "args": BETA} | measure(trainer) | inputs


def kto_losses(data: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, args in KTO.items():
        trainer = make_trainer(trl.KTOTrainer, trl.KTOConfig, args, data, policy(), reference(), rows=8)
        rows = list(trainer.train_dataset)
        assert [row["label"] for row in rows] == [True] * 4 + [False] * 4
        entry = {"trainer": "KTOTrainer", "args": args} | measure(trainer, singly=args["loss_type"] != "kto")
        if args["loss_type"] == "kto":
            mismatched = score_both([(row["prompt_ids"], row["KL_completion_ids"]) for row in rows])
            entry["kl"] = trainer._metrics["eval"]["kl"][0]
            order = "prompts of chosen 0-3 then rejected 0-3, each with the previous row's completion"
            entry["inputs"] = {"order": order, "mismatched": mismatched}
        yield name, entry


def reward_losses(data: Dataset, pairs: list[dict[str, list[int]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    args = {"center_rewards_coefficient": 0.01}
    data = data.add_column("margin", MARGINS)
    model = build(LlamaForSequenceClassification, 3)
    trainer = make_trainer(trl.RewardTrainer, trl.RewardConfig, args, data, model)
    inputs: dict[str, list[float]] = {"margin": MARGINS}
    for side in ("chosen", "rejected"):
        ids = [pair["prompt_ids"] + pair[f"{side}_ids"] for pair in pairs]
        assert [row[f"{side}_ids"] for row in trainer.train_dataset] == ids
        with torch.no_grad():
            inputs[f"{side}_rewards"] = [float(model(torch.tensor([row])).logits) for row in ids]
    yield "reward", {"trainer": "RewardTrainer", "args": args, "inputs": inputs} | measure(trainer)


def check(losses: dict[str, dict[str, Any]], inputs: dict[str, dict[str, list[list[float]]]], data: Dataset) -> None:
    """The arrays are what TRL's loss saw, and the plain head is the fused one in a wider type."""
    own, ref = (
        [
            sum(chosen) - sum(rejected)
            for chosen, rejected in zip(inputs["chosen"][key], inputs["rejected"][key], strict=True)
        ]
        for key in ("token_log_probs", "ref_token_log_probs")
    )
    h = torch.tensor(own, dtype=torch.float64) - torch.tensor(ref, dtype=torch.float64)
    expected = -torch.nn.functional.logsigmoid(0.1 * h)
    assert torch.allclose(expected, torch.tensor(losses["sigmoid"]["per_example"], dtype=h.dtype), rtol=0, atol=1e-12)
    assert abs(float(expected.mean()) - losses["sigmoid"]["mean"]) < 1e-12
    assert abs(losses["aot_unsmoothed"]["mean"] - losses["sigmoid"]["mean"]) > 1e-3 < losses["kto"]["kl"]
    assert losses["sigmoid_label_smoothing"]["mean"] == losses["sigmoid"]["mean"] == losses["f_reverse_kl"]["mean"]
    for module in (trl.trainer.dpo_trainer, trl.trainer.kto_trainer):
        module.add_fused_lm_head = add_fused_lm_head
    for name in ("sigmoid", "wpo"):
        args = losses[name]["args"]
        models = policy(torch.float32), reference(torch.float32)
        fused = measure(make_trainer(trl.DPOTrainer, trl.DPOConfig, args, data, *models), singly=False)
        assert abs(fused["mean"] - losses[name]["mean"]) < 1e-5, name


def main(out: Path) -> None:
    torch.set_num_threads(1)
    disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for module in (trl.trainer.dpo_trainer, trl.trainer.kto_trainer):
        module.add_fused_lm_head = plain_lm_head
    pairs = make_pairs()
    data = as_text(pairs)
    inputs = {
        side: score_both([(pair["prompt_ids"], pair[f"{side}_ids"]) for pair in pairs])
        for side in ("chosen", "rejected")
    }
    losses = {}
    for source in (dpo_losses(data, pairs), cpo_losses(data, pairs), kto_losses(data), reward_losses(data, pairs)):
        for name, entry in source:
            precision = "float32" if name in FLOAT32 else "float64"
            losses[name] = entry | {"precision": precision, "note": NOTES.get(name, "")}
    check(losses, inputs, data)
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    skipped = {"bco": "this TRL has no BCOTrainer; bco_pair of DPOTrainer is here", "kto_pair": "removed from TRL"}
    result = versions | {"inputs": inputs, "losses": losses, "skipped": skipped}
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name, entry in losses.items():
        print(f"{name:26} {entry['mean']:.12f} {'per example' if 'per_example' in entry else ''}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    main(parser.parse_args().output)
