"""Measure a step of GKD beside a plain implementation with whole logits: peak memory, processor time, agreement.

Run as: python benchmarks/distillation.py [--write]

Student and teacher are small GPT-NeoX models with random weights and a vocabulary of 50,304, so that heads and divergences are most of
the work. Each side takes its steps in a process of its own; sides alternate. The optimizer is SGD, so that memory is that of forward
and backward. --launch "nice -n -5" is what each process is started with.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "plugins" / "alignzoo-distill"), str(ROOT / "benchmarks" / "peers")]

from alignzoo_distill import GKD  # noqa: E402
from process import resident  # noqa: E402

from alignzoo.core.distributed.process_group import Ranks  # noqa: E402
from alignzoo.core.memory import peak_memory, reset_peak_memory, tune_malloc  # noqa: E402
from alignzoo.data.trees import Branch, Tree, Trees  # noqa: E402
from alignzoo.recipe.schema import TrainConfig  # noqa: E402
from alignzoo.scoring import head_statistics  # noqa: E402
from alignzoo.scoring.batches import BatchBuilder  # noqa: E402
from alignzoo.scoring.scorer import Scorer  # noqa: E402
from alignzoo.training.optimizers import make_optimizer  # noqa: E402
from alignzoo.training.step import Engine  # noqa: E402

STUDENT = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
TEACHER = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
VOCABULARY, BETA, RATE = 50_304, 0.5, 1e-2
ROWS, PROMPT, COMPLETION = 4, 64, 128
STEPS, ROUNDS = 2, 2
SIDES = {
    "alignzoo": "alignzoo",
    "again": "alignzoo, with no logits kept for the backward",
    "scored": "plain, whole logits of the scored tokens",
    "scored_tuned": "the same with alignzoo's settings of malloc, faster and larger",
    "plain": "plain, whole logits of all tokens, as TRL's trainer has them",
}
RESULTS = ROOT / "benchmarks" / "results" / "distillation.md"


def build(seed: int, shape: dict[str, int]) -> PreTrainedModel:
    """Return a GPT-NeoX with random weights. Logits are spread, so that the two models disagree."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "gpt_neox", vocab_size=VOCABULARY, max_position_embeddings=512, rotary_pct=0.25, initializer_range=0.05, **shape
    )
    return AutoModelForCausalLM.from_config(config).eval()


def rows() -> list[Tree]:
    """Return prompts and completions of random tokens, all of one length: nothing is padding on any side."""
    rng = np.random.default_rng(0)

    def some(length: int) -> np.ndarray:
        return rng.integers(2, VOCABULARY, length).astype(np.int32)

    return [Tree(f"row {n}", some(PROMPT), (Branch(some(COMPLETION)),)) for n in range(ROWS)]


class Ours:
    """Steps of the engine, over the whole batch as one micro-batch."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        tune_malloc()
        config = TrainConfig.model_validate({
            "batch_size": ROWS, "shuffle": False, "micro_batch_tokens": 10**6, "max_grad_norm": None,
            "optimizer": {"name": "sgd", "learning_rate": RATE}, "schedule": {"name": "constant", "warmup_steps": 0},
        })  # fmt: skip
        live = Scorer(teacher.requires_grad_(False), "packed")
        builder = BatchBuilder(GKD(beta=BETA, reduction="batch_tokens"), Trees.build(rows()), live=live)
        self.engine = Engine(
            builder,
            config,
            Ranks("cpu"),
            Scorer(student, "packed"),
            make_optimizer(config.optimizer, student),
            10**6,
            0,
        )
        self.done = 0

    def step(self) -> float:
        """Take a step. Returns its loss."""
        self.done += 1
        return self.engine.step(self.done - 1)[0]["loss"]


class Plain:
    """Whole logits of both models, and autograd."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, side: str) -> None:
        if side == "scored_tuned":
            tune_malloc()
        scored_alone = side != "plain"
        self.student, self.teacher, self.scored_alone = student, teacher.requires_grad_(False), scored_alone
        self.optimizer = torch.optim.SGD(student.parameters(), lr=RATE)
        trees = rows()
        self.ids = torch.from_numpy(np.stack([np.concatenate([t.prompt, t.branches[0].tokens]) for t in trees])).long()

    def logits(self, model: PreTrainedModel) -> torch.Tensor:
        """Return the logits that predict scored tokens, and before those of all others too."""
        if self.scored_alone:
            hidden = model.base_model(self.ids, use_cache=False)[0][:, PROMPT - 1 : -1]
            return model.get_output_embeddings()(hidden)
        return model(self.ids, use_cache=False).logits[:, :-1]

    def step(self) -> float:
        """Take a step. Returns its loss."""
        with torch.no_grad():
            teacher = self.logits(self.teacher)
        log_pi, log_ref = (one.log_softmax(-1) for one in (self.logits(self.student), teacher))
        both = torch.stack([log_pi + np.log1p(-BETA), log_ref + np.log(BETA)])
        mixed = both.logsumexp(0)
        first, second = (functional.kl_div(mixed, one, reduction="none", log_target=True) for one in (log_ref, log_pi))
        each = (BETA * first + (1 - BETA) * second)[:, -COMPLETION:]
        loss = each.sum() / (ROWS * COMPLETION)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def stage(side: str) -> dict[str, Any]:
    """Take the steps of one side in this process."""
    models = build(0, STUDENT), build(1, TEACHER)
    if side == "again":
        head_statistics.KEPT_BYTES = 0
    taker = Ours(*models) if side in ("alignzoo", "again") else Plain(*models, side)
    torch.set_num_threads(1)
    reset_peak_memory(torch.device("cpu"))
    before = resident("VmRSS")
    losses, seconds = [], []
    for _ in range(1 + STEPS):
        began = time.process_time()
        losses.append(taker.step())
        seconds.append(time.process_time() - began)
    return {
        "losses": losses, "seconds": seconds[1:], "peak": peak_memory(torch.device("cpu")), "before": before,
    }  # fmt: skip


def measure(launch: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run every side in turn, some rounds long."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, results in found.items():
            command = [*launch.split(), sys.executable, __file__, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(side, results[-1], file=sys.stderr)
    return found


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page with the table."""
    ours = found["alignzoo"][0]["losses"]
    apart = max(
        abs(one - other) / abs(one) for runs in found.values() for run in runs
        for one, other in zip(ours, run["losses"], strict=True)
    )  # fmt: skip
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "alignzoo"))
    tokens = ROWS * COMPLETION
    lines = [
        "# A step of distillation beside whole logits", "", "Command: `python benchmarks/distillation.py --write`",
        f"({versions}; {platform.machine()}, one thread of the CPU, float32).", "",
        f"A step of GKD (beta {BETA}) over {ROWS} rows of {PROMPT} prompt and {COMPLETION} completion tokens: {tokens:,} "
        f"scored tokens, a vocabulary of {VOCABULARY:,}. Student and teacher are GPT-NeoX models of 4 layers of 256 and "
        f"6 layers of 384, with random weights. One array of logits of the scored tokens is "
        f"{tokens * VOCABULARY * 4 / 2**20:.0f} MiB. Memory is the peak of resident memory beyond that before the first "
        "step, gradients of the weights included. Seconds are processor time of a step after the first, median (least to "
        f"most) over {len(found['plain'])} processes with {STEPS} steps each.", "",
        "| | memory, MiB | of alignzoo's | processor seconds a step | of alignzoo's |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    base = {}
    for side, words in SIDES.items():
        memory = statistics.median(run["peak"] - run["before"] for run in found[side]) / 2**20
        seconds = [value for run in found[side] for value in run["seconds"]]
        median = statistics.median(seconds)
        base = base or {"memory": memory, "seconds": median}
        lines.append(
            f"| {words} | {memory:,.0f} | {memory / base['memory']:.2f} | "
            f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {median / base['seconds']:.2f} |"
        )
    lines += [
        "", f"The losses of all sides agree to a relative difference of {apart:.1e}, over {1 + STEPS} steps.",
        f"alignzoo keeps at most {head_statistics.KEPT_BYTES / 2**20:.0f} MiB of logits for the backward, of both models "
        f"together, and computes {head_statistics.SLICE_BYTES['cpu'] / 2**20:.0f} MiB of each at a time. Beyond that "
        "the memory of logits does not grow with the tokens of a micro-batch, and each further token costs the second line's time. "
        "Nothing has been measured on a GPU.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--side", choices=SIDES, help="take the steps of one side in this process, and print its figures"
    )
    parser.add_argument("--write", action="store_true", help="write the page to benchmarks/results")
    parser.add_argument("--launch", default="", help="words before the command of each process")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each side")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(stage(options.side)))
        return
    text = page(measure(options.launch, options.rounds))
    print(text)
    if options.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
