"""Measure the memory of tokenizing a JSONL file that is larger than memory may be.

Run as: python benchmarks/large_file.py [GIGABYTES ...] [--write]        (1 2 5: 25 minutes on two idle cores)

The rows are SFT data with `prompt` and `completion`, 4 KB on average: pieces of real HH dialogues from seeded places (of the
embedded ones where the files are not beside the checkout), so that words are as frequent and as rare as people use them. The
tokenizer is trained on such dialogues. `alignzoo` reads, tokenizes and stores the rows in a process of its own, with its
children. Every .2 s the memory of all of them is added up: PSS, which counts a page that several processes share once, and of
it what no file backs, which the kernel can't drop.
LARGE_FOLDER is the folder for file and tokens (1.7 times the file's size). `--write` writes benchmarks/results/large_file.md.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from growth import PACKAGES, Watch, write_model

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "large_file.md"
LIMIT = 1.5
"""GB that the tokens of a file of any size may take."""
CHARACTERS_OF_A_ROW = (2_000, 1_400)
BLOCK = 4_000


def write_large(folder: Path, gigabytes: float) -> tuple[int, str]:
    """Write rows until the file has this size, and rows for the tokenizer; return their number, and where they are from."""
    import numpy as np
    from beside_trl import hh_rows

    source, real = hh_rows()
    pairs = [{name: f"{row.prompt}{own.text}" for name, own in zip(("chosen", "rejected"), row.completions, strict=True)}
             for row in real]  # fmt: skip
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs[::-1]))
    text = "".join(pair["chosen"] for pair in pairs)
    random = np.random.default_rng(0)
    rows = size = 0
    with open(folder / "rows.jsonl", "w") as file:
        while size < gigabytes * 1e9:
            counts = np.clip(random.lognormal(np.log(CHARACTERS_OF_A_ROW), 0.5, (BLOCK, 2)), 20, 20_000).astype(int)
            places = random.integers(0, max(1, len(text) - 20_000), counts.shape)
            for at, count in zip(places.tolist(), counts.tolist(), strict=True):
                asked, answer = (text[a : a + n] for a, n in zip(at, count, strict=True))
                size += file.write(json.dumps({"prompt": f"{rows} {asked}", "completion": f" {answer}"}) + "\n")
                rows += 1
    return rows, source


def tokenize(folder: Path) -> dict[str, Any]:
    """Make the tokens in this process and its children."""
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.token_store import TokenStore
    from alignzoo.models.tokenizers import pretrained_tokenizer
    from alignzoo.recipe.load import load_recipe

    (folder / "recipe.yaml").write_text(json.dumps({
        "name": "large", "objective": {"name": "sft"}, "data": {"name": "files", "path": str(folder / "rows.jsonl")},
        "tokens": {"max_length": 2048, "max_prompt_length": 1024},
        "model": {"path": str(folder / "model")}, "train": {"optimizer": {"name": "adamw", "learning_rate": 1e-4}},
    }))  # fmt: skip
    whole = load_recipe(folder / "recipe.yaml")
    store = TokenStore(whole, pretrained_tokenizer(str(folder / "model")))
    watch, began = Watch(), time.perf_counter()
    start = watch.most["anonymous"]
    found = store.get(RowReader(whole.recipe.data), lambda line: None)
    seconds = time.perf_counter() - began
    most = watch.stop()
    report = found.report
    return {
        "train": report["train"], "held_out": report["held_out"], "seconds": seconds, "start": start, "peak": most,
        "cpu": sum(os.times()[:4]), "tokens": int(len(found.train.trees.tokens) + len(found.held_out.trees.tokens)),
    }  # fmt: skip


def measured(gigabytes: float) -> dict[str, Any]:
    """The figures of one file, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LARGE_FOLDER"), prefix="large-") as name:
        folder = Path(name)
        need, free = 1.8 * gigabytes * 1e9, shutil.disk_usage(folder).free
        if need > free:
            sys.exit(f"{gigabytes:g} GB need {need / 1e9:.1f} GB of disk, and {folder.parent} has {free / 1e9:.1f}")
        rows, source = write_large(folder, gigabytes)
        write_model(folder)
        size = (folder / "rows.jsonl").stat().st_size
        environment = os.environ | {"ALIGNZOO_CACHE": str(folder / "cache"), "ALIGNZOO_RUNS": str(folder / "runs")}
        done = subprocess.run(
            [sys.executable, __file__, "--stage", str(folder)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout) | {"bytes": size, "rows": rows, "source": source}
        assert found["train"] + found["held_out"] == rows, "rows are missing"
        print(found, file=sys.stderr, flush=True)
        return found


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    sizes = " ".join(f"{one['bytes'] / 1e9:g}"[:4].rstrip("0").rstrip(".") for one in results)
    lines = [
        "# Memory of tokenizing a file larger than memory", "",
        f"Command: `python benchmarks/large_file.py {sizes} --write` ({versions}; "
        f"Python {platform.python_version()}; {platform.machine()}, {len(os.sched_getaffinity(0))} cores).", "",
        f"SFT rows of `prompt` and `completion` in one JSONL file, pieces of real dialogues ({results[0]['source']}), read, tokenized by a",
        "BPE of 8,192 tokens and stored. Memory is that of the process and all its children together, looked at every .2 s: PSS counts a",
        "page that several share once. What no file backs (anonymous memory) is the part that the kernel can't drop.", "",
        "| file, GB | rows | tokens | at the start, not a file's, MiB | peak of all processes: PSS | of it not a file's | minutes | of processor time | MB/s of processor time |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for one in results:
        lines.append(
            f"| {one['bytes'] / 1e9:.2f} | {one['rows']:,} | {one['tokens']:,} | {one['start']:,.0f} | {one['peak']['pss']:,.0f} "
            f"| {one['peak']['anonymous']:,.0f} | {one['seconds'] / 60:.1f} | {one['cpu'] / 60:.1f} "
            f"| {one['bytes'] / 1e6 / one['cpu']:.1f} |"
        )
    over = [one for one in results if one["peak"]["pss"] * 2**20 > LIMIT * 1e9]
    lines += ["", f"{'Over' if over else 'All within'} the limit of {LIMIT} GB.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure the sizes in turn."""
    words = [word for word in sys.argv[1:] if word != "--write"]
    results = []
    for size in map(float, words or ("1", "2", "5")):
        results.append(measured(size))
        if "--write" in sys.argv:
            RESULT.write_text(table(results))
    print(table(results))
    sys.exit(any(one["peak"]["pss"] * 2**20 > LIMIT * 1e9 for one in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        print(json.dumps(tokenize(Path(sys.argv[2]))))
    else:
        main()
