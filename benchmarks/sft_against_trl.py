"""Measure SFT against TRL's SFTTrainer on the same messages: losses of each step, and rows a second.

Run as: python benchmarks/sft_against_trl.py --trl-python PATH_OF_A_PYTHON_WITH_TRL [--rows 96] [--repeats 3] [--write]

The rows are real multi-turn HH dialogues as `messages`, in a ChatML template with marks around what the assistant writes;
its turns are scored. Each side tokenizes them itself, and trains a Llama of random weights for an epoch in float32. TRL runs
at its defaults and at the settings listed here, with and without packing. Each figure comes from its own process, and all
alternate within a repeat. The limit of both is the time of the epoch's matrix products alone, as in roofline.py: linear layers on
every token, and the head on the scored ones (or on all, as TRL has it). A packed step of TRL has other rows, so that only its speed is compared. `--write` writes
benchmarks/results/sft_against_trl.md and .json. Exits with 1 when losses on the same rows differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from beside_trl import RESULTS, SideFailed, hh_rows, random_model, run_side
from roofline import rate_of
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from alignzoo.data.convert import convert_rows
from alignzoo.data.sources.files import Files
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.rows import Row
from alignzoo.models.sources.transformers import TokenizerConfig
from alignzoo.models.tokenizers import train_tokenizer
from alignzoo.objectives.builtin.sft import SFT
from alignzoo.recipe.schema import TokensConfig

BATCH, LONGEST, RATE, LIMIT = 32, 1024, 1e-4, 1e-5
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FAST = {"gradient_checkpointing": False}
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647"}


def parts(count: int) -> dict[str, int]:
    """A step of BATCH rows in `count` micro-batches."""
    return {"per_device_train_batch_size": BATCH // count, "gradient_accumulation_steps": count}


def packed(blocks: int) -> dict[str, Any]:
    """A step of so many packed sequences of LONGEST tokens."""
    return {"packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": blocks}


TRL: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "defaults": (parts(1), {}),
    "gradient_checkpointing=False": (FAST | parts(1), {}),
    "  and 8 micro-batches a step": (FAST | parts(8), {}),
    "  and 32 micro-batches a step, glibc keeps freed memory": (FAST | parts(32), ALLOCATOR),
    "  and packing=True": (FAST | packed(8), {}),
    "  and packing=True, glibc keeps freed memory": (FAST | packed(8), ALLOCATOR),
    "  and packing=True, packing_strategy=wrapped": (FAST | packed(8) | {"packing_strategy": "wrapped"}, ALLOCATOR),
}
"""Name -> (SFTConfig's settings, environment variables)."""


def messages(row: Row) -> list[dict[str, str]] | None:
    """The chosen dialogue as messages; None where its turns don't alternate."""
    found = []
    for turn in f"{row.prompt}{row.completions[0].text}".split("\n\n"):
        speaker, mark, text = turn.partition(":")
        if mark and speaker in SPEAKERS:
            found.append({"role": SPEAKERS[speaker], "content": text.strip()})
        elif found:
            found[-1]["content"] += f"\n\n{turn}"
    roles = [one["role"] for one in found]
    whole = roles == ["user", "assistant"] * (len(roles) // 2) and all(one["content"] for one in found)
    return found if whole and len(found) > 1 else None


class Bench:
    """Model and messages, made once in a folder, and both sides run on them."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked, self.count = folder, asked, 0
        self.tokenizer: PreTrainedTokenizerBase
        self.source, rows = hh_rows()
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=8190), rows[:4000])
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = TEMPLATE
        random_model(folder / "model", "llama", tokenizer)
        chats = []
        for row in rows[:: max(1, len(rows) // (3 * asked.rows))]:
            chat = messages(row)
            if chat and len(tokenizer.apply_chat_template(chat)["input_ids"]) <= LONGEST and len(chats) < asked.rows:
                chats.append(chat)
        assert len(chats) == asked.rows, f"{len(chats)} dialogues"
        self.tokenizer = tokenizer
        (folder / "data").mkdir()
        for name, some in (("train", chats), ("test", chats[:2])):
            text = "".join(json.dumps({"messages": chat}) + "\n" for chat in some)
            (folder / "data" / f"{name}.jsonl").write_text(text)

    def ours(self) -> dict[str, Any]:
        """An epoch of alignzoo."""
        place = self.place()
        path = place / "sft.yaml"
        path.write_text(json.dumps({
            "objective": {"name": "sft"}, "model": {"path": str(self.folder / "model")},
            "data": {"name": "files", "path": str(self.folder / "data")},
            "tokens": {"max_length": LONGEST, "max_prompt_length": LONGEST - 1}, "reporters": [],
            "train": {
                "shuffle": False, "device": "cpu", "batch_size": BATCH, "epochs": 1, "max_grad_norm": 1.0,
                "optimizer": {"name": "adamw", "learning_rate": RATE}, "precision": "float32",
            },
            "eval": {"replies": {"num_prompts": 0}},
        }))  # fmt: skip
        asked = {"recipe": str(path), "threads": self.asked.threads}
        return run_side(sys.executable, "alignzoo_steps.py", place, asked, limit=1200)

    def theirs(self, settings: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
        """An epoch of TRL."""
        asked = {
            "model": str(self.folder / "model"), "messages": str(self.folder / "data" / "train.jsonl"),
            "threads": self.asked.threads,
            "settings": {"learning_rate": RATE, "max_length": LONGEST, "max_grad_norm": 1.0, "bf16": False} | settings,
        }  # fmt: skip
        return run_side(self.asked.trl_python, "trl_sft_steps.py", self.place(), asked, environment, limit=1200)

    def products(self) -> dict[str, float]:
        """Seconds of processor time of an epoch's products alone, with the head on the scored tokens and on all."""
        source = Files(path=str(self.folder / "data" / "train.jsonl"), held_out_fraction=0)
        rows, _ = convert_rows([row for row in source.read("train") if isinstance(row, Row)], SFT(), "extremes")
        tokens = TokensConfig(max_length=LONGEST, max_prompt_length=LONGEST - 1)
        trees = tokenize(rows, self.tokenizer, tokens).trees
        scored = [sum(branch.scored for branch in tree.branches) for tree in trees]
        step = SimpleNamespace(model=AutoModelForCausalLM.from_pretrained(self.folder / "model"))
        torch.set_num_threads(self.asked.threads)
        found = {"tokens": int(trees.sizes.sum()), "scored": sum(scored), "ours": 0.0, "all": 0.0}
        for at in range(0, len(trees), BATCH):
            slots = int(trees.sizes[at : at + BATCH].sum())
            for name, heads in (("ours", sum(scored[at : at + BATCH])), ("all", slots)):
                seconds, _ = rate_of(step, slots, heads, torch.float32, 3, time.process_time)  # type: ignore[arg-type]
                found[name] += seconds
        return found

    def place(self) -> Path:
        """A new folder for one process."""
        self.count += 1
        place = self.folder / f"run{self.count}"
        place.mkdir()
        return place


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    runs, rows = found["runs"], found["rows"]
    ours, ours_cpu = (statistics.median(rows / sum(one[key]) for one in runs["alignzoo"]) for key in ("seconds", "cpu"))
    lines = [
        "# SFT beside TRL's SFTTrainer", "",
        f"Command: `python benchmarks/sft_against_trl.py --trl-python ... --rows {rows} --repeats {len(runs['alignzoo'])} --write` "
        f"({', '.join(f'{name} {number}' for name, number in found['versions'].items())}; {found['machine']}, {found['threads']} threads).",
        "", f"{rows} real dialogues ({found['source']}) as `messages`, the assistant's turns scored; a Llama of 4 layers 256 wide, random "
        f"weights, float32, AdamW, steps of {BATCH} rows, at most {LONGEST} tokens. Rows a second are those of whole epochs, without the "
        "start; the sides alternate. Of several repeats the median, with the least and the most. A packed step has other rows, and "
        "`wrapped` lets dialogues attend to each other. Without pairs there is no prompt to share.", "",
        "| side | rows/s | alignzoo is faster by | rows a second of processor time | alignzoo is faster by | largest difference of a step's loss |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, some in runs.items():
        if isinstance(some, str):
            lines.append(f"| TRL: {name.strip()} | {some[:120]} | | | | |")
            continue
        rates = sorted(rows / sum(one["seconds"]) for one in some)
        rate = statistics.median(rates)
        spread = f"{rate:.1f} ({rates[0]:.1f} to {rates[-1]:.1f})"
        differs = difference(found, name)
        on_cpu = statistics.median(rows / sum(one["cpu"]) for one in some)
        ratios = ["", ""] if name == "alignzoo" else [f"{ours / rate:.1f}×", f"{ours_cpu / on_cpu:.1f}×"]
        label = name if name == "alignzoo" else f"TRL: {name.strip()}"
        lines.append(
            f"| {label} | {spread} | {ratios[0]} | {on_cpu:.1f} | {ratios[1]} | {'' if differs is None else f'{differs:.1e}'} |"
        )
    for name, what in (("ours", "the head on the scored tokens"), ("all", "the head on every token")):
        rate = rows / found["products"][name]
        lines.append(f"| matrix products alone, {what} | | | {rate:.1f} | {ours_cpu / rate:.2f}× | |")
    lines += [
        "", f"Of {found['products']['tokens']:,} tokens {found['products']['scored']:,} are scored. alignzoo takes "
        f"{rows / ours_cpu / found['products']['ours']:.2f} times the processor time of its products alone.",
    ]  # fmt: skip
    if found["busy"]:
        lines += ["", f"Other processes were running (load {found['busy']:.0f} on {os.cpu_count()} cores)."]
    return "\n".join(lines) + "\n"


def difference(found: dict[str, Any], name: str) -> float | None:
    """Largest difference of the losses of one side's steps from ours; None where its steps have other rows."""
    if name == "alignzoo" or "packing" in name or isinstance(found["runs"][name], str):
        return None
    ours = found["runs"]["alignzoo"][0]["losses"]
    return max(abs(a - b) for one in found["runs"][name] for a, b in zip(ours, one["losses"], strict=True))


def main() -> int:
    """Run the sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="words of TRL's settings")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    sides = {name: one for name, one in TRL.items() if any(word in name for word in asked.only)}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), asked)
        found: dict[str, Any] = {
            "rows": asked.rows, "source": bench.source, "threads": asked.threads,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores", "runs": {"alignzoo": []}, "versions": {}, "busy": 0.0,
        }  # fmt: skip
        for _ in range(asked.repeats):
            one = bench.ours()
            found["versions"] |= {"alignzoo": one["versions"]["alignzoo"]}
            found["runs"]["alignzoo"].append({key: one[key] for key in ("seconds", "cpu", "losses", "peak_bytes")})
            for side, (settings, environment) in sides.items():
                if isinstance(found["runs"].get(side), str):
                    continue
                try:
                    one = bench.theirs(settings, environment)
                except SideFailed as error:
                    found["runs"][side] = str(error)
                    continue
                found["versions"] |= one["versions"]
                kept = {key: one[key] for key in ("seconds", "cpu", "losses", "peak_bytes", "sequences", "tokens")}
                found["runs"].setdefault(side, []).append(kept)
                print(
                    side,
                    sum(one["seconds"]),
                    one["losses"],
                    found["runs"]["alignzoo"][-1]["losses"],
                    file=sys.stderr,
                    flush=True,
                )
            found["products"] = bench.products()
            busy = os.getloadavg()[0] - asked.threads
            found["busy"] = max(found["busy"], busy if busy > 1 else 0.0)
            if asked.write:
                (RESULTS / "sft_against_trl.json").write_text(json.dumps(found, indent=1) + "\n")
                (RESULTS / "sft_against_trl.md").write_text(table(found))
    print(table(found))
    return int(any((difference(found, side) or 0.0) > LIMIT for side in found["runs"]))


if __name__ == "__main__":
    sys.exit(main())
