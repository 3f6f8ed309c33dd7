"""Record Liger-Kernel's fused-linear losses on one fixed batch of four pairs, with the log-probs that went in.

Run as: /path/to/liger-env/python benchmarks/peers/liger_losses.py tests/objectives/peer_liger.json

It needs liger-kernel (and triton, which that imports) and not alignzoo; no network, CPU only, not compiled. Hidden states
and head are random numbers for policy and reference; Liger multiplies them itself. It casts logits to float32 whatever the
input, so every number is a float32 one. `per_example` is present when the loss of the batch is the mean of the losses of
its pairs taken one at a time, `inputs` where the loss received more than the shared arrays.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from liger_kernel.chunked_loss import (
    LigerFusedLinearCPOLoss,
    LigerFusedLinearDPOLoss,
    LigerFusedLinearKTOLoss,
    LigerFusedLinearORPOLoss,
    LigerFusedLinearSimPOLoss,
)
from torch import Tensor

VOCABULARY, HIDDEN, IGNORED = 64, 16, -100
LENGTHS = [(5, 7), (12, 9), (8, 7), (4, 6)]
SEED = 3
"""Margins have both signs, and KTO's KL estimate is above 0."""
BETA = {"beta": 0.1}
PLAIN = {"compute_nll_loss": False}
# name in the record: (class, arguments)
PAIRED: dict[str, tuple[type, dict[str, Any]]] = {
    "sigmoid": (LigerFusedLinearDPOLoss, BETA),
    "sigmoid_label_smoothing": (LigerFusedLinearDPOLoss, {**BETA, "label_smoothing": 0.1}),
    "sigmoid_average": (LigerFusedLinearDPOLoss, {**BETA, "average_log_prob": True}),
    "sigmoid_nll": (LigerFusedLinearDPOLoss, {**BETA, "compute_nll_loss": True, "alpha": 0.2}),
    "hinge": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "hinge"}),
    "exo_pair": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "exo_pair", "label_smoothing": 1e-3}),
    "nca_pair": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "nca_pair"}),
    "robust": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "robust", "label_smoothing": 0.1}),
    "bco_pair": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "bco_pair"}),
    "sppo_hard": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "sppo_hard"}),
    "apo_zero": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "apo_zero"}),
    "apo_down": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "apo_down"}),
    "discopop": (LigerFusedLinearDPOLoss, {**BETA, "loss_type": "discopop", "discopop_tau": 0.05}),
    "cpo": (LigerFusedLinearCPOLoss, {**BETA, "alpha": 1.0}),
    "cpo_no_nll": (LigerFusedLinearCPOLoss, {**BETA, **PLAIN}),
    "cpo_average": (LigerFusedLinearCPOLoss, {**BETA, **PLAIN, "average_log_prob": True}),
    "cpo_label_smoothing": (LigerFusedLinearCPOLoss, {**BETA, **PLAIN, "label_smoothing": 0.1}),
    "simpo": (LigerFusedLinearSimPOLoss, {"beta": 2.0, "gamma": 0.5, **PLAIN}),
    "simpo_default": (LigerFusedLinearSimPOLoss, {"beta": 2.0, "gamma": 0.5}),
    "simpo_label_smoothing": (LigerFusedLinearSimPOLoss, {"beta": 2.0, "gamma": 0.5, **PLAIN, "label_smoothing": 0.1}),
    "orpo": (LigerFusedLinearORPOLoss, BETA),
    "orpo_no_nll": (LigerFusedLinearORPOLoss, {**BETA, **PLAIN}),
}
NLL = "the nll term is the mean over all chosen completion tokens of the batch, not a mean of per-pair means"
NOTES = {
    "sigmoid_label_smoothing": "label_smoothing is ignored: sigmoid doesn't read it",
    "sigmoid_average": "mean log-probs in the place of sums",
    "sigmoid_nll": "alpha * nll + sigmoid; " + NLL,
    "cpo": NLL, "orpo": NLL, "simpo_default": "compute_nll_loss is True by default, so that it is not SimPO alone; " + NLL,
    "kto": "kl is given by the caller; there are no weights; mean over the 8 examples",
    "kto_no_kl": "without kl the reference point is 0",
}  # fmt: skip


class Side:
    """Hidden states of every completion under a model, and its head; targets are the same for both."""

    def __init__(self, targets: list[Tensor], dice: torch.Generator) -> None:
        self.head = torch.randn(VOCABULARY, HIDDEN, generator=dice) * 0.5
        self.hidden = [torch.randn(len(target), HIDDEN, generator=dice) for target in targets]

    def token_log_probs(self, index: int, target: Tensor) -> list[float]:
        """In float64, of the logits that Liger sees in float32."""
        every = (self.hidden[index] @ self.head.t()).double().log_softmax(-1)
        return every.gather(-1, target[:, None]).squeeze(-1).tolist()

    def padded(self, rows: list[int], width: int) -> Tensor:
        return torch.stack([
            torch.nn.functional.pad(self.hidden[row], (0, 0, 0, width - len(self.hidden[row]))) for row in rows
        ])  # fmt: skip


def padded_targets(targets: list[Tensor], rows: list[int]) -> Tensor:
    width = max(len(targets[row]) for row in rows)
    return torch.stack([
        torch.nn.functional.pad(targets[row], (0, width - len(targets[row])), value=IGNORED) for row in rows
    ])  # fmt: skip


def paired(cls: type, args: dict[str, Any], own: Side, ref: Side, targets: list[Tensor], pairs: list[int]) -> float:
    """Liger's own call: chosen ones, then rejected ones."""
    rows = [*pairs, *(pair + len(LENGTHS) for pair in pairs)]
    target = padded_targets(targets, rows)
    more = (None, ref.padded(rows, target.shape[1]), ref.head) if cls is LigerFusedLinearDPOLoss else ()
    loss, _ = cls(compiled=False, **args)(own.head, own.padded(rows, target.shape[1]), target, *more)
    return float(loss)


def unpaired(own: Side, ref: Side, targets: list[Tensor], rows: list[int], kl: float | None) -> float:
    target = padded_targets(targets, rows)
    labels = torch.tensor([row < len(LENGTHS) for row in rows])
    width = target.shape[1]
    loss, _ = LigerFusedLinearKTOLoss(compiled=False, use_ref_model=True, **BETA)(
        own.padded(rows, width), own.head, target, None, labels, ref.padded(rows, width), ref.head,
        kl=None if kl is None else torch.tensor(kl),
    )  # fmt: skip
    return float(loss)


def with_each(mean: float, alone: list[float]) -> dict[str, Any]:
    same = abs(sum(alone) / len(alone) - mean) < 1e-5 * max(1.0, abs(mean))
    return ({"per_example": alone} if same else {}) | {"mean": mean}


@torch.no_grad()
def main(out: Path) -> None:
    torch.set_num_threads(1)
    dice = torch.Generator().manual_seed(SEED)
    pairs = list(range(len(LENGTHS)))
    lengths = [chosen for chosen, _ in LENGTHS] + [rejected for _, rejected in LENGTHS]
    # what an unrelated prompt makes of the same completions has hidden states of its own
    targets = [torch.randint(VOCABULARY, (length,), generator=dice) for length in lengths] * 2
    own, ref = Side(targets, dice), Side(targets, dice)

    def arrays(rows: range) -> dict[str, list[list[float]]]:
        return {
            "token_log_probs": [own.token_log_probs(row, targets[row]) for row in rows],
            "ref_token_log_probs": [ref.token_log_probs(row, targets[row]) for row in rows],
        }

    inputs = {"chosen": arrays(range(4)), "rejected": arrays(range(4, 8))}
    mismatched = arrays(range(8, 16))
    kl = sum(map(sum, mismatched["token_log_probs"])) - sum(map(sum, mismatched["ref_token_log_probs"]))
    assert kl > 1, "KTO's reference point must not be 0"
    losses: dict[str, dict[str, Any]] = {}
    for name, (cls, args) in PAIRED.items():
        alone = [paired(cls, args, own, ref, targets, [pair]) for pair in pairs]
        measured = with_each(paired(cls, args, own, ref, targets, pairs), alone)
        losses[name] = {"class": cls.__name__, "args": args, **measured, "note": NOTES.get(name, "")}
    for name, estimate in (("kto", kl / 8), ("kto_no_kl", None)):
        alone = [unpaired(own, ref, targets, [row], estimate) for row in range(8)]
        measured = with_each(unpaired(own, ref, targets, list(range(8)), estimate), alone)
        more = {"kl": estimate, "inputs": {"mismatched": mismatched}} if estimate else {}
        losses[name] = {"class": "LigerFusedLinearKTOLoss", "args": BETA, **measured, "note": NOTES[name], **more}
    tried = {args.get("loss_type", "sigmoid") for cls, args in PAIRED.values() if cls is LigerFusedLinearDPOLoss}
    assert tried == LigerFusedLinearDPOLoss._SUPPORTED_LOSS_TYPES, "a new loss type, or one less"
    versions = {"liger_kernel": version("liger-kernel"), "torch": torch.__version__}
    skipped = {"ipo": "refused by this Liger", "grpo": "needs on-policy samples", "jsd, cosine": "distillation"}
    result = versions | {"precision": "float32", "inputs": inputs, "losses": losses, "skipped": skipped}
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name, entry in losses.items():
        print(f"{name:26} {entry['mean']:.9f} {'per example' if 'per_example' in entry else ''}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    main(parser.parse_args().output)
