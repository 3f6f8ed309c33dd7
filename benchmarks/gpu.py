"""DPO steps on one GPU: alignzoo's packed rows with FlexAttention, against TRL's DPOTrainer if a Python has it.

Run as: python benchmarks/gpu.py [--trl-python PATH_OF_A_PYTHON_WITH_TRL] [--steps 5] [--only WORD ...]

Both sides have the same random weights in bfloat16, and so AdamW states in bfloat16, and the same pairs in the same order.
Each row comes from its own process. Writes benchmarks/results/gpu.md. Without a GPU it says so and exits with 2. `--dry`
runs the script with tiny shapes on the CPU, only the first row in its own process, writes nothing and prints no figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from workload import ROOT, UniformReference, hh_trees, made_up, spread

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.memory import out_of_memory
from alignzoo.data.trees import Tree, Trees
from alignzoo.models.compile import compiled_layers, disable_tf32
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.recipe.schema import TrainConfig
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.layout import choose_layout
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.step import Engine

SHAPES: dict[str, dict[str, Any]] = {
    "Llama-1B": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "max_position_embeddings": 4096, "tie_word_embeddings": True,
    },
    "Pythia-2.8B": {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 10240,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096, "rotary_pct": 0.25,
    },
}  # fmt: skip
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32,
        "num_key_value_heads": 2}  # fmt: skip
ROWS = ("HH", "2k")
OURS = {"packed": {}, "packed, compiled": {"compile": True}, "packed, checkpoints": {"gradient_checkpointing": True}}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}
"""Dense bfloat16 FLOPs a second, of NVIDIA's data sheets (the SXM forms)."""


def fields_of(shape: str, dry: bool) -> dict[str, Any]:
    fields = dict(SHAPES[shape])
    return fields | {key: value for key, value in TINY.items() if key in fields} if dry else fields


def trees_of(rows: str, count: int, dry: bool) -> tuple[list[Tree], str]:
    if dry:
        return made_up(count, 20, 6, 8), "made up"
    if rows == "HH":
        return hh_trees(count)
    return made_up(count, 1600, 200, 200), "made-up rows of about 2,000 tokens"


def model_of(asked: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    fields = fields_of(asked["shape"], asked["dry"])
    kind = torch.float32 if asked["dry"] else torch.bfloat16
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields), dtype=kind).eval()


def flops(model: Any, trees: list[Tree]) -> float:
    """What a step on these trees has to multiply: linear layers on every token once, the head where a token is scored,
    attention where one sees another; the backward is two forwards. Recomputing is not useful and not counted."""
    head, config = model.get_output_embeddings(), model.config
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    total = 0.0
    for tree in trees:
        prompt, branches = len(tree.prompt), [len(branch.tokens) for branch in tree.branches]
        seen = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in branches)
        scored = sum(branch.scored for branch in tree.branches)
        total += tree.slots * linear + scored * head.weight.numel()
        total += 2 * seen * config.hidden_size * config.num_hidden_layers
    return 6 * total


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    """Steps of alignzoo's engine in this process."""
    disable_tf32()
    ranks = Ranks("cpu" if asked["dry"] else "cuda")
    device, cuda = ranks.device, ranks.device.type == "cuda"
    trees, _ = trees_of(asked["rows"], asked["steps"] * asked["batch"], asked["dry"])
    model, built = model_of(asked).to(device), Trees.build(trees)
    config = TrainConfig.model_validate({
        "batch_size": asked["batch"], "shuffle": False, "micro_batch_tokens": asked["budget"],
        "optimizer": {"name": "adamw", "learning_rate": 1e-6}, "max_grad_norm": 1.0,
    })  # fmt: skip
    scorer = Scorer(model)
    layout = choose_layout(scorer, built, "packed")
    reference: Any = UniformReference(built, model.config.vocab_size)
    engine = Engine(
        BatchBuilder(DPO(beta=0.1), built, reference), config, ranks, scorer, make_optimizer(config.optimizer, model),
        asked["steps"], 0,
    )  # fmt: skip
    if asked.get("gradient_checkpointing"):
        use_gradient_checkpointing(model)
    seconds, useful = [], []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with compiled_layers(model, asked.get("compile", False), device):
        for step in range(asked["steps"]):
            began = time.perf_counter()
            engine.step(step)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            useful.append(flops(model, trees[step * asked["batch"] : (step + 1) * asked["batch"]]))
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    return {"seconds": seconds, "flops": useful, "gpu_peak_bytes": peak, "layout": layout.reason}


def found_or_error(asked: dict[str, Any]) -> dict[str, Any]:
    """The steps here, or what they failed with."""
    try:
        return ours(asked)
    except (RuntimeError, MemoryError) as error:
        return {"error": "out of memory" if out_of_memory(error) else str(error).splitlines()[0][:200]}


def process(command: list[str], asked: dict[str, Any], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a side found, or the last line of what it failed with."""
    given, out = folder / "asked.json", folder / "found.json"
    out.unlink(missing_ok=True)
    given.write_text(json.dumps(asked))
    done = subprocess.run([*command, str(given), str(out)], capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(out.read_text())


def theirs(python: str, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """TRL with its best attention and Liger where its python has them, reference scored before, in its own process."""
    trees, _ = trees_of(asked["rows"], asked["steps"] * asked["batch"], asked["dry"])
    model = folder / asked["shape"]
    if not model.exists():
        from tokenizers import Tokenizer, models

        model_of(asked).save_pretrained(model)
        words = Tokenizer(models.WordLevel({"<eos>": 0, "<pad>": 1}, unk_token="<eos>"))
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>").save_pretrained(model)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    ids = [(tree.prompt, *(branch.tokens for branch in tree.branches)) for tree in trees]
    pairs = [dict(zip(names, (part.tolist() for part in row), strict=True)) for row in ids]
    has = {name: subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0
           for name in ("flash_attn", "liger_kernel")}  # fmt: skip
    loading = {"dtype": "float32" if asked["dry"] else "bfloat16"}
    loading["attn_implementation"] = "flash_attention_2" if has["flash_attn"] and not asked["dry"] else "sdpa"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    settings = {
        "use_cpu": asked["dry"], "bf16": not asked["dry"], "learning_rate": 1e-6, "beta": 0.1, "max_length": None,
        "precompute_ref_log_probs": True, "gradient_checkpointing": bool(asked.get("gradient_checkpointing")),
        "use_liger_kernel": has["liger_kernel"] and not asked["dry"],
    }  # fmt: skip
    found: dict[str, Any] = {}
    for parts in [n for n in (1, 2, 4, 8, 16, 32, 64) if asked["batch"] % n == 0]:  # the largest micro-batch that fits
        work = {
            "model": str(model), "pairs": pairs, "steps": asked["steps"], "batch_size": asked["batch"] // parts,
            "threads": torch.get_num_threads(), "launched": time.time(), "model_settings": loading,
            "settings": settings | {"gradient_accumulation_steps": parts},
        }  # fmt: skip
        found = process([python, str(ROOT / "benchmarks/peers/trl_steps.py")], work, folder, environment)
        if "out of memory" not in found.get("error", ""):
            break
    return found


def matmul_rate(size: int = 8192) -> float:
    """FLOPs a second of a square product in bfloat16 on this GPU: the median of ten."""
    x, times = torch.randn(size, size, device="cuda", dtype=torch.bfloat16), []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        x @ x
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(times[2:])


def line(cell: str, side: str, found: dict[str, Any], batch: int, useful: list[float], peak: float, rate: float) -> str:
    if "error" in found:
        return f"| {cell} | {side} | {found['error']} | | | |"
    seconds = found["seconds"][1:]  # the first compiles and pages in
    each = [work / taken for work, taken in zip(useful[1:], seconds, strict=True)]
    share = f"{statistics.median(each) / peak:.0%}" if peak else "?"
    memory = f"{found['gpu_peak_bytes'] / 2**30:.1f}"
    pairs = spread([batch / taken for taken in seconds])
    return f"| {cell} | {side} | {pairs} | {memory} | {share} | {statistics.median(each) / rate:.0%} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python")
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--budget", type=int, default=16384, help="token slots of a micro-batch")
    parser.add_argument("--only", nargs="+", default=[], help="words of cells: a shape, or HH, or 2k")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU, no figures")
    parser.add_argument("--side", nargs=2, metavar=("ASKED", "OUT"), help="of the script's own processes")
    given = parser.parse_args()
    if given.side:
        asked = json.loads(Path(given.side[0]).read_text())
        Path(given.side[1]).write_text(json.dumps(found_or_error(asked)))
        return 0
    if not given.dry and not torch.cuda.is_available():
        print("no GPU is there: nothing is measured (--dry runs the script on the CPU)", file=sys.stderr)
        return 2
    own = [sys.executable, __file__, "--side"]
    steps, batch, budget = (2, 4, 256) if given.dry else (given.steps, given.batch, given.budget)
    rate = 1.0 if given.dry else matmul_rate()
    name = "CPU" if given.dry else torch.cuda.get_device_name()
    peak = next((value for card, value in PEAK.items() if card in name), 0.0)
    cells = [(shape, rows) for shape in SHAPES for rows in ROWS]
    lines, failed, notes = [], False, set()
    with tempfile.TemporaryDirectory() as place:
        for shape, rows in cells:
            cell, useful = f"{shape}, {rows}", []
            if given.only and not any(word in cell for word in given.only):
                continue
            asked = {"shape": shape, "rows": rows, "dry": given.dry, "steps": steps, "batch": batch, "budget": budget}
            sides = {
                side: found_or_error(asked | more)
                if given.dry and more  # an import of torch for each shows nothing more
                else process(own, asked | more, Path(place), dict(os.environ))
                for side, more in OURS.items()
            }
            useful = next((found["flops"] for found in sides.values() if "flops" in found), [0.0] * steps)
            if given.trl_python:
                sides["TRL"] = theirs(given.trl_python, asked, Path(place))
            for side, found in sides.items():
                if "layout" in found and not found["layout"].endswith("with FlexAttention"):
                    notes.add(f"{cell}, {side}: {found['layout']}")
                failed |= "error" in found
                lines.append(line(cell, side, found, batch, useful, peak, rate))
                print(f"{cell}, {side}: {found.get('error', 'ran')}" if given.dry else lines[-1], flush=True)
    if given.dry:
        return int(failed)
    has = [name for name in ("flash_attn", "liger_kernel") if importlib.util.find_spec(name)]
    head = [
        "# DPO steps on a GPU", "", f"Command: `python benchmarks/gpu.py {' '.join(sys.argv[1:])}` on one {name}; torch "
        f"{torch.__version__}; beside alignzoo installed: {', '.join(has) or 'neither flash_attn nor liger_kernel'}.", "",
        f"Weights and AdamW states in bfloat16 on both sides, {batch} pairs a step, medians (least to most) of "
        f"{steps - 1} steps after the first; each row is a process. Utilization is the FLOPs that the forest's own tokens "
        f"need (prompt once) over the time, of the card's dense peak ({peak / 1e12:.0f} TFLOPs/s by its data sheet) and of "
        f"an 8192-wide product measured here ({rate / 1e12:.0f} TFLOPs/s).", "",
        "| model, rows | side | pairs/s | peak GPU memory, GiB | of the peak | of the measured product |",
        "|---|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    (ROOT / "benchmarks" / "results" / "gpu.md").write_text(
        "\n".join([*head, *lines, *(f"\n{note}." for note in sorted(notes))]) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
