"""Shared parts of the comparisons with TRL: rows, random-weight models, and a process for each side."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import workload
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from alignzoo.data.sources.hh import HH
from alignzoo.data.splits import read_rows
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.rows import Completion, Row
from alignzoo.recipe.schema import TokensConfig

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = Path(__file__).parent / "peers"
HH_FILES = ROOT.parent / "shared" / "data"

SHAPES = {"pythia": workload.SHAPES["Pythia-70M"], "llama": workload.SHAPES["Llama 4x256"]}


class SideFailed(Exception):
    """A side's process failed; its last line of stderr, or whole of it."""

    def __init__(self, stderr: str) -> None:
        lines = [line for line in stderr.strip().splitlines() if line.strip()]
        super().__init__(lines[-1] if lines else "no message")
        self.stderr = stderr


def hh_rows(name: str = "hh_*.jsonl.gz") -> tuple[str, list[Row]]:
    """Where real HH rows came from (the embedded sample if they are not beside the checkout), and those whose two
    dialogues differ in the last turn only: TRL takes no others."""
    files = sorted(HH_FILES.glob(name))
    source = HH(path=tuple(map(str, files))) if files else HH(path="toy")
    read = read_rows(source)
    rows = [row for row in read.train if not any(c.context for c in row.completions)]
    return ", ".join(file.name for file in files) or "the embedded sample", rows


def long_prompts(count: int, tokenizer: PreTrainedTokenizerBase, words: Sequence[str], seed: int = 0) -> list[Row]:
    """Rows of random words with prompts of 600 to 900 tokens and completions of 40 to 80."""
    draw = random.Random(seed)
    sizes = {word: len(tokenizer(f" {word}")["input_ids"]) for word in words}

    def text(tokens: int) -> str:
        taken: list[str] = []
        while tokens > 0:
            taken.append(draw.choice(words))
            tokens -= sizes[taken[-1]]
        return " " + " ".join(taken)

    rows = []
    for number in range(count):
        prompt, *answers = (text(draw.randint(*span)) for span in ((600, 900), (40, 80), (40, 80)))
        rows.append(Row(f"long:{number}", prompt, tuple(Completion(answer) for answer in answers), str(number)))
    return rows


def words_of(rows: Iterable[Row], most: int = 2000) -> list[str]:
    """Plain words of the rows' prompts."""
    found = {word for row in rows for word in str(row.prompt).split() if word.isascii() and word.isalpha()}
    return sorted(found)[:: max(1, len(found) // most)]


def random_model(folder: Path, shape: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> None:
    """Write a model of this shape with random weights (another vocabulary on wish), and the tokenizer."""
    torch.manual_seed(0)
    about = SHAPES[shape] | {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(**(about | ({"vocab_size": vocab_size} if vocab_size else {})))
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_pairs(
    folder: Path, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, count: int, longest: int, held_out: int = 8,
    whole: bool = False,
) -> list[dict[str, list[int]]]:  # fmt: skip
    """The first `count` rows with at most `longest` tokens: as text in the folder for us, and the token ids for TRL.

    `longest` is of a sequence (prompt and completion), or of a `whole` pair with its prompt once.
    """
    done = tokenize(rows[: count * 3], tokenizer, TokensConfig(max_length=100_000, max_prompt_length=99_999))
    pairs, texts = [], []
    for row, tree in zip(done.rows, done.trees, strict=True):
        ids = [tree.prompt.tolist(), *(branch.tokens.tolist() for branch in tree.branches)]
        size = sum(map(len, ids)) if whole else len(ids[0]) + max(map(len, ids[1:]))
        if size <= longest and len(pairs) < count:
            pairs.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
            texts.append({"prompt": row.prompt, "chosen": row.completions[0].text, "rejected": row.completions[1].text})
    if len(pairs) < count:
        sys.exit(f"{len(pairs)} rows have at most {longest} tokens; {count} are needed")
    folder.mkdir(parents=True)
    for name, some in (("train", texts), ("test", texts[:held_out])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in some))
    return pairs


def run_side(
    python: str, script: str, folder: Path, asked: dict, environment: dict | None = None, limit: float = 600
) -> dict:
    """What one of peers/ found, in a fresh process of that interpreter. Raises SideFailed, also after `limit` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    given, out = folder / "asked.json", folder / "found.json"
    given.write_text(json.dumps(asked | {"launched": time.time()}))
    variables = os.environ | {
        "OMP_NUM_THREADS": str(asked["threads"]), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets"),
        "ALIGNZOO_RUNS": str(folder / "runs"), "ALIGNZOO_CACHE": str(folder / "cache"),
    }  # fmt: skip
    if python != sys.executable:
        variables.pop("PYTHONPATH", None)
    command = [python, str(PEERS / script), str(given), str(out)]
    variables |= environment or {}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=limit)
    except subprocess.TimeoutExpired:
        raise SideFailed(f"not done after {limit:.0f} s") from None
    if done.returncode:
        raise SideFailed(done.stderr)
    return json.loads(out.read_text()) | {"stderr": done.stderr[-4000:]}


def recipe(folder: Path, name: str, objective: dict, model: Path, data: Path, train: dict, longest: int) -> Path:
    """A recipe file (JSON is YAML) over a folder that `write_pairs` wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({
        "objective": objective,
        "model": {"path": str(model)},
        "data": {"name": "files", "path": str(data)},
        "tokens": {"max_length": longest, "max_prompt_length": longest - 1},
        "train": {"shuffle": False, "device": "cpu"} | train,
        "eval": {"replies": {"num_prompts": 0}},
    }))  # fmt: skip
    return path
