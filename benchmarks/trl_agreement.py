"""Twenty consecutive DPO and IPO steps beside TRL's: same model, same token ids, same order, float32, plain SGD.

Run as: python benchmarks/trl_agreement.py --trl-python PATH_OF_A_PYTHON_WITH_TRL

TRL's `ipo` is the mean form, so alignzoo's side says `log_ratio: mean`; `sigmoid` is DPO. The pairs are real HH rows when
they are beside the checkout, else the embedded sample. Exits with 1 when a loss differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import alignzoo
from alignzoo.data import read_rows, tokenise
from alignzoo.data.sources import HH
from alignzoo.models import train_tokenizer
from alignzoo.recipe.schema import TokenizerConfig, TokensConfig
from alignzoo.runfolder import read_lines

ROOT = Path(__file__).parent.parent
HH_FILE = ROOT.parent / "shared" / "data" / "hh_helpful_base_test.jsonl.gz"
LIMIT = 1e-4
# (our objective, TRL's loss_type, learning rate): large enough that the losses move visibly within twenty steps
CASES = {
    "dpo": ({"name": "dpo", "beta": 0.1}, "sigmoid", 0.002),
    "ipo": ({"name": "ipo", "beta": 0.1, "log_ratio": "mean"}, "ipo", 0.0005),
}


def make_workload(folder: Path, rows: int, threads: int) -> dict:
    """A random-weight Llama with a tokenizer of its own, and pairs both as text for us and as token ids for TRL."""
    path = str(HH_FILE) if HH_FILE.is_file() else "sample"
    source = HH(path=path)
    usable = [row for row in read_rows(source).train if not any(c.context for c in row.completions)]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=2048), usable)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=2048, bos_token_id=0, eos_token_id=0, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    done = tokenise(usable[: rows * 2], tokenizer, TokensConfig(max_length=2048, max_prompt_length=1024))
    pairs, texts = [], []
    for row, tree in zip(done.rows, done.trees, strict=True):
        ids = [tree.prompt.tolist(), *(branch.tokens.tolist() for branch in tree.branches)]
        if sum(map(len, ids)) <= 600 and len(pairs) < rows:
            pairs.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
            texts.append({"prompt": row.prompt, "chosen": row.completions[0].text, "rejected": row.completions[1].text})
    (folder / "data").mkdir()
    for name, some in (("train", texts), ("test", texts[:8])):
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in some))
    return {"model": str(folder / "model"), "pairs": pairs, "source": path, "threads": threads}


def ours(folder: Path, workload: dict, objective: dict, rate: float, batch_size: int, steps: int) -> dict:
    """alignzoo's losses through its public API."""
    recipe = folder / f"{objective['name']}.yaml"
    recipe.write_text(json.dumps({  # JSON is YAML
        "objective": objective,
        "model": {"path": workload["model"]},
        "data": {"name": "table", "path": str(folder / "data")},
        "tokens": {"max_length": 2048, "max_prompt_length": 1024},
        "train": {
            "batch_size": batch_size, "max_steps": steps, "shuffle": False, "max_grad_norm": None, "device": "cpu",
            "optimizer": {"name": "sgd", "learning_rate": rate},
        },
        "eval": {"samples": 0},
    }))  # fmt: skip
    os.environ |= {"ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache")}
    torch.set_num_threads(workload["threads"])
    result = alignzoo.run(recipe)
    losses = [line["loss"] for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "train"]
    seconds = [line["seconds"] for line in read_lines(result.folder / "timings.jsonl")]
    return {"losses": losses, "seconds": seconds}


def theirs(python: str, folder: Path, workload: dict, loss_type: str, rate: float, batch_size: int, steps: int) -> dict:
    """TRL's losses, from a process of its own."""
    asked = folder / f"trl_{loss_type}.json"
    asked.write_text(json.dumps(workload | {
        "loss_type": loss_type, "learning_rate": rate, "batch_size": batch_size, "steps": steps, "beta": 0.1,
    }))  # fmt: skip
    out = folder / f"trl_{loss_type}_out.json"
    script = Path(__file__).parent / "peers" / "trl_steps.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, str(script), str(asked), str(out)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"TRL's side failed:\n{done.stderr[-3000:]}")
    return json.loads(out.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workload = make_workload(folder, asked.steps * asked.batch_size, asked.threads)
        results = {}
        for case, (objective, loss_type, rate) in CASES.items():
            mine = ours(folder, workload, objective, rate, asked.batch_size, asked.steps)
            trl = theirs(asked.trl_python, folder, workload, loss_type, rate, asked.batch_size, asked.steps)
            worst = max(abs(a - b) for a, b in zip(mine["losses"], trl["losses"], strict=True))
            results[case] = {"alignzoo": mine, "trl": trl, "max_difference": worst, "objective": objective}
        write(asked.output, results, workload, asked)
    return int(any(result["max_difference"] > LIMIT for result in results.values()))


def write(output: Path, results: dict, workload: dict, asked: argparse.Namespace) -> None:
    """trl_agreement.md and .json."""
    output.mkdir(parents=True, exist_ok=True)
    source = "the embedded sample" if workload["source"] == "sample" else Path(workload["source"]).name
    versions = next(iter(results.values()))["trl"]["versions"] | {"alignzoo": alignzoo.__version__}
    lines = [
        "# Beside TRL, step by step", "",
        f"Command: `python benchmarks/trl_agreement.py --trl-python PYTHON --steps {asked.steps}`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; {platform.machine()}, {asked.threads} threads).",
        f"Random-weight Llama (4 layers, 256 wide, vocabulary 2,048), {len(workload['pairs'])} pairs of {source},",
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
