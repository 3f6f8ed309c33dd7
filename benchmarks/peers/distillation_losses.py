"""Record the distillation losses of TRL and of DistiLLM-2's authors on fixed logits, with their gradients.

Run as: /path/to/trl-env/python benchmarks/peers/distillation_losses.py DISTILLM2 tests/objectives/peer_distillation.json

DISTILLM2 is a git repository with github.com/jongwooko/distillm-2. The script needs torch and TRL and not alignzoo; no
network, CPU only, float64. From DISTILLM2 it takes the static method `get_batch_logps` alone.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from torch.nn import functional as F
from trl.experimental.gkd import GKDTrainer

FILE, FUNCTION = "src/distillm_trainer.py", "get_batch_logps"
LENGTHS, VOCABULARY, IGNORED = [4, 2, 5, 3], 9, -100
GKD = {
    "beta 0": {"beta": 0.0}, "beta 0.1": {"beta": 0.1}, "beta 0.5": {"beta": 0.5}, "beta 0.9": {"beta": 0.9},
    "beta 1": {"beta": 1.0}, "beta 0.5 at 2": {"beta": 0.5, "temperature": 2.0},
    "beta 0 at 0.9": {"beta": 0.0, "temperature": 0.9},
}  # fmt: skip


def authors_function(repository: Path) -> tuple[Callable[..., Any], str]:
    """Return `get_batch_logps` of DistiLLM-2, and the commit that it is from."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=True)
        return done.stdout

    text = git("show", f"HEAD:{FILE}")
    (node,) = [one for one in ast.walk(ast.parse(text)) if getattr(one, "name", "") == FUNCTION]
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    names: dict[str, Any] = {"torch": torch, "F": F, "math": math}
    exec("from __future__ import annotations\nfrom typing import *\n" + textwrap.dedent("\n".join(lines)), names)
    return names[FUNCTION], git("rev-parse", "HEAD").strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("distillm2", type=Path)
    parser.add_argument("record", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    width = max(LENGTHS) + 1
    student, teacher = (2 * torch.randn(len(LENGTHS), width, VOCABULARY, dtype=torch.float64).round(decimals=3)
                        for _ in range(2))  # fmt: skip
    student.requires_grad_()
    labels = torch.randint(VOCABULARY, (len(LENGTHS), width))
    for row, length in enumerate(LENGTHS):
        labels[row, 0] = IGNORED
        labels[row, 1 + length :] = IGNORED

    def entry(value: torch.Tensor) -> dict[str, Any]:
        (gradient,) = torch.autograd.grad(value.sum(), student, retain_graph=True)
        return {"value": value.tolist(), "gradient": gradient.tolist()}

    losses = {}
    for name, fields in GKD.items():
        args = (student[:, :-1], teacher[:, :-1], labels[:, 1:])
        losses[f"trl gkd {name}"] = entry(GKDTrainer.generalized_jsd_loss(*args, **fields)) | {"fields": fields}
    function, commit = authors_function(options.distillm2)
    for loss_type, parts in {
        "distillm_v2": ("forward", "reverse"),
        "kd": ("forward_kl", ""),
        "gkd": ("gkd", ""),
    }.items():
        found = function(student, teacher, labels.clone(), average_log_prob=True, loss_type=loss_type)[2:]
        for part, value in zip(parts, found, strict=True):
            if part:
                losses[f"distillm2 {part}"] = entry(value)
    where = f"https://github.com/jongwooko/distillm-2 {commit} {FILE} {FUNCTION}"
    record = {
        "sources": {"trl": f"trl {trl.__version__}, trl.experimental.gkd.GKDTrainer.generalized_jsd_loss",
                    "distillm2": where},
        "lengths": LENGTHS, "student": student.tolist(), "teacher": teacher.tolist(), "labels": labels.tolist(),
        "losses": losses,
    }  # fmt: skip
    options.record.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
