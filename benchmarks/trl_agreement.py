"""Compare twenty consecutive DPO and IPO steps with TRL's: same model, token ids and order, float32, plain SGD.

Run as: python benchmarks/trl_agreement.py --trl-python PATH_OF_A_PYTHON_WITH_TRL

TRL's `ipo` is the mean form, so alignzoo's side sets `log_ratio: mean`; TRL's `sigmoid` is DPO. The pairs are real HH rows
when they are beside the checkout, else the embedded dataset. Exits with 1 when a loss differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from beside_trl import RESULTS, hh_rows, random_model, recipe, run_side, write_pairs

import alignzoo
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer

HH_FILE = "hh_helpful_base_test.jsonl.gz"
LIMIT = 1e-4
# (our objective, TRL's loss_type, learning rate): large enough that the losses move visibly within twenty steps
CASES = {
    "dpo": ({"name": "dpo", "beta": 0.1}, "sigmoid", 0.002),
    "ipo": ({"name": "ipo", "beta": 0.1, "log_ratio": "mean"}, "ipo", 0.0005),
}


def ours(folder: Path, objective: dict, rate: float, batch_size: int, steps: int, threads: int) -> dict:
    """alignzoo's losses through its public API."""
    train = {
        "batch_size": batch_size, "max_steps": steps, "max_grad_norm": None,
        "optimizer": {"name": "sgd", "learning_rate": rate},
    }  # fmt: skip
    path = recipe(folder, objective["name"], objective, folder / "model", folder / "data", train, 2048)
    asked = {"recipe": str(path), "threads": threads}
    return run_side(sys.executable, "alignzoo_steps.py", folder / objective["name"], asked)


def theirs(
    python: str, folder: Path, pairs: list, loss_type: str, rate: float, batch_size: int, steps: int, threads: int
) -> dict:
    """TRL's losses, from a process of its own."""
    settings = {
        "loss_type": [loss_type], "beta": 0.1, "learning_rate": rate, "optim": "sgd", "max_grad_norm": 0.0,
        "max_length": None, "bf16": False, "logging_steps": 1, "gradient_checkpointing": False,
    }  # fmt: skip
    asked = {"model": str(folder / "model"), "pairs": pairs, "steps": steps, "batch_size": batch_size,
             "threads": threads, "settings": settings}  # fmt: skip
    return run_side(python, "trl_steps.py", folder / f"trl_{loss_type}", asked)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, rows = hh_rows(HH_FILE)
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=2048), rows)
        random_model(folder / "model", "llama", tokenizer, len(tokenizer))
        pairs = write_pairs(folder / "data", rows, tokenizer, asked.steps * asked.batch_size, 600, whole=True)
        results = {}
        for case, (objective, loss_type, rate) in CASES.items():
            same = (rate, asked.batch_size, asked.steps, asked.threads)
            mine = ours(folder, objective, *same)
            trl = theirs(asked.trl_python, folder, pairs, loss_type, *same)
            worst = max(abs(a - b) for a, b in zip(mine["losses"], trl["losses"], strict=True))
            results[case] = {"alignzoo": mine, "trl": trl, "max_difference": worst, "objective": objective}
        write(asked.output, results, source, len(pairs), asked)
    return int(any(result["max_difference"] > LIMIT for result in results.values()))


def write(output: Path, results: dict, source: str, pairs: int, asked: argparse.Namespace) -> None:
    """trl_agreement.md and .json."""
    output.mkdir(parents=True, exist_ok=True)
    versions = next(iter(results.values()))["trl"]["versions"] | {"alignzoo": alignzoo.__version__}
    lines = [
        "# Beside TRL, step by step", "",
        f"Command: `python benchmarks/trl_agreement.py --trl-python PYTHON --steps {asked.steps}`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; {platform.machine()}, {asked.threads} threads).",
        f"Random-weight Llama (4 layers, 256 wide, vocabulary 2,048), {pairs} pairs of {source},",
        f"batch {asked.batch_size}, their order, float32, plain SGD, no clipping, beta 0.1. IPO is the mean form on both sides.",
        "", "| step | DPO alignzoo | DPO TRL | difference | IPO alignzoo | IPO TRL | difference |", "|" + "---:|" * 7,
    ]  # fmt: skip
    for step in range(asked.steps):
        cells = []
        for case in CASES:
            a, b = (results[case][who]["losses"][step] for who in ("alignzoo", "trl"))
            cells += [f"{a:.6f}", f"{b:.6f}", f"{abs(a - b):.1e}"]
        lines.append(f"| {step + 1} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| | largest difference | alignzoo pairs/s (median step) | TRL pairs/s | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, result in results.items():
        rates = [asked.batch_size / statistics.median(result[who]["seconds"][2:]) for who in ("alignzoo", "trl")]
        lines.append(
            f"| {case} | {result['max_difference']:.1e} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[0] / rates[1]:.1f} |"
        )
    lines += ["", "TRL's step includes its reference forward; alignzoo scored the reference before, once for both runs.",
              "The rates are a first data point of this small workload, not the speed benchmark."]  # fmt: skip
    text = "\n".join(lines) + "\n"
    (output / "trl_agreement.md").write_text(text)
    (output / "trl_agreement.json").write_text(json.dumps({"versions": versions, "results": results}, indent=1))
    print(text)


if __name__ == "__main__":
    sys.exit(main())
