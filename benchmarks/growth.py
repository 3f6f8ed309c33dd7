"""Measure what grows with the data, from a thousand to a million pairs.

Run as: python benchmarks/growth.py [SIZE ...]        (1,000 10,000 100,000 1,000,000: 12 minutes)

The data is synthetic HH dialogues of the lengths of real HH (125 prompt, 41 and 51 completion tokens on average), drawn
from a seed. The policy has one layer, width 16 and a vocabulary of 8,192, so that the model takes little of the time. Each
stage is its own process: tokens are made on one core (at most a tenth of a million rows) and on two; the reference pass
runs (up to 10,000 rows; beyond them the cache is filled through `ReferenceCache.add` with drawn values); then a run starts
with tokens and reference in the cache. Files are in the page cache. GROWTH_FOLDER is the folder for the data (4 GB for a
million rows).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "benchmarks" / "results"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
HELD_OUT, STEPS, PROBES = 256, 20, 200
ONE_CORE_MOST, TRUE_PASS_MOST = 100_000, 10_000
PACKAGES = ("alignzoo", "torch", "transformers", "tokenizers", "numpy", "safetensors")


# --- the data


def word_stream(random: Any, words: int) -> list[str]:
    """A million words of a vocabulary of made-up ones, by Zipf's law."""
    import numpy as np

    letters = np.array(list("aeioubcdfghklmnprstvw"))
    vocabulary = ["".join(random.choice(letters, size)) for size in random.integers(2, 8, words)]
    frequency = 1 / np.arange(1, words + 1)
    return [vocabulary[i] for i in random.choice(words, 1_000_000, p=frequency / frequency.sum())]


def write_rows(folder: Path, rows: int) -> None:
    """train.jsonl with `rows` dialogues, and test.jsonl."""
    import numpy as np

    random = np.random.default_rng(0)
    stream = word_stream(random, 4000)
    for name, count in (("test", HELD_OUT), ("train", rows)):
        with open(folder / f"{name}.jsonl", "w") as file:
            for start in range(0, count, 10_000):
                many = min(10_000, count - start)
                lengths = [random.lognormal(np.log(mean) - 0.32, 0.8, many) for mean in (30, 48, 30, 38, 48)]
                sizes = np.clip(np.stack(lengths, 1), 2, 200).astype(int)
                places = random.integers(0, len(stream) - 200, sizes.shape)
                for at, size in zip(places.tolist(), sizes.tolist(), strict=True):
                    asked, answered, again, good, bad = (
                        " ".join(stream[a : a + n]) for a, n in zip(at, size, strict=True)
                    )
                    before = f"\n\nHuman: {asked}\n\nAssistant: {answered}\n\nHuman: {again}\n\nAssistant:"
                    record = {"chosen": f"{before} {good}.", "rejected": f"{before} {bad}?"}
                    file.write(json.dumps(record) + "\n")


def write_model(folder: Path) -> None:
    """A tokenizer trained on some rows, and a policy from nothing."""
    from types import SimpleNamespace

    from alignzoo.data.sources.hh import HH
    from alignzoo.models.loading import from_config
    from alignzoo.models.tokenizers import train_tokenizer

    rows = [row for _, row in zip(range(2000), HH(path=str(folder / "data")).read("train"), strict=False)]
    tokenizer = train_tokenizer(SimpleNamespace(train="bpe", vocab_size=8192), rows)  # type: ignore[arg-type]
    fields = {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    from_config(fields, tokenizer, 0, "language_model", "float32").save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def resolved(folder: Path) -> Any:
    from alignzoo.recipe.load import load_recipe

    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({
        "name": "growth", "objective": {"name": "dpo"}, "data": {"name": "hh", "path": str(folder / "data")},
        "model": {"path": str(folder / "model")}, "reporters": [], "eval": {"replies": {"num_prompts": 1, "max_new_tokens": 1}},
        "train": {"optimizer": {"name": "adamw", "learning_rate": 1e-4}, "max_steps": STEPS, "device": "cpu"},
    }))  # fmt: skip
    return load_recipe(recipe)


# --- the stages: each is a process, and prints one line of JSON


def memory() -> dict[str, float]:
    """MiB of this process and its children: resident, PSS, and what of PSS is not a file's. Shared pages count once in PSS.

    What they share is divided by their number, so that the figures of all are read again if a child came or went meanwhile.
    """
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(20):
        children = listed.read_text()
        sizes = {"Rss": 0.0, "Pss": 0.0, "Pss_Anon": 0.0}
        for process in ("self", *children.split()):
            try:
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
            except OSError:  # it has ended
                continue
            for name, size, *_ in (line.split() for line in lines):
                if name[:-1] in sizes:
                    sizes[name[:-1]] += int(size) / 1024
        if listed.read_text() == children:
            break
    return {"resident": sizes["Rss"], "pss": sizes["Pss"], "anonymous": sizes["Pss_Anon"]}


class Watch:
    """The most memory that this process and its children had together while it watched, by the names of `memory`."""

    def __init__(self) -> None:
        import threading

        self.most, self._going = memory(), True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._going:
            now = memory()
            self.most = {name: max(size, now[name]) for name, size in self.most.items()}
            time.sleep(0.2)

    def stop(self) -> dict[str, float]:
        """Return the peaks, and watch no longer."""
        self._going = False
        self._thread.join()
        return self.most


def cold(folder: Path, cores: int) -> dict[str, Any]:
    """Make the tokens."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from alignzoo.data.row_reader import RowReader
    from alignzoo.data.token_store import TokenStore
    from alignzoo.models.tokenizers import pretrained_tokenizer

    whole = resolved(folder)
    store = TokenStore(whole, pretrained_tokenizer(str(folder / "model")))
    before = memory()["anonymous"]
    watch, began = Watch(), time.perf_counter()
    found = store.get(RowReader(whole.recipe.data), lambda line: None)
    seconds = time.perf_counter() - began
    files = sum(path.stat().st_size for path in (store.root / store._key_of_pairs).iterdir())
    lengths = {name: line["mean"] for name, line in found.report["lengths"].items()}
    return {
        "rows": len(found.train.trees), "seconds": seconds, "start": before, "peak": watch.stop()["anonymous"],
        "store": files / 2**20, "lengths": lengths,
    }  # fmt: skip


def fill(folder: Path) -> dict[str, Any]:
    """Make the reference's scores of the training rows, and the true ones of the held-out rows."""
    import numpy as np

    from alignzoo.core.console import Screen
    from alignzoo.core.paths import cache_root
    from alignzoo.data.token_store import TokenStore
    from alignzoo.models.loading import load_policy
    from alignzoo.models.tokenizers import pretrained_tokenizer
    from alignzoo.reference.cache import ReferenceCache
    from alignzoo.reference.scores import cache_folder, score_reference
    from alignzoo.scoring.layout import choose_layout
    from alignzoo.scoring.scorer import Scorer

    whole = resolved(folder)
    tokenizer = pretrained_tokenizer(str(folder / "model"))
    data = TokenStore(whole, tokenizer).get(None, lambda line: None)  # type: ignore[arg-type]
    scorer = Scorer(load_policy(whole.recipe.model, tokenizer, 0))
    choose_layout(scorer, data.train.trees, "auto")
    cache, screen = cache_folder(cache_root(), scorer), Screen(quiet=True)
    began, trees = time.perf_counter(), data.train.trees
    before = memory()["anonymous"]
    watch = Watch()
    if len(trees) <= TRUE_PASS_MOST:
        score_reference(scorer, trees, cache, 8192, screen)
    else:
        drawn, cache = np.random.default_rng(0), ReferenceCache(cache)
        for block in trees.blocks():
            scored = block.scored.tolist()
            branch = np.ones(len(scored), dtype=bool)
            branch[block.trees[:-1]] = False
            for key, s in zip(block.keys, np.flatnonzero(branch).tolist(), strict=True):
                cache.add(key.tobytes(), -drawn.random(scored[s], dtype=np.float32))
        cache.flush()
    seconds = time.perf_counter() - began
    score_reference(scorer, data.held_out.trees, cache, 8192, screen)
    size = sum(path.stat().st_size for path in cache.iterdir()) / 2**20
    return {
        "true_pass": len(trees) <= TRUE_PASS_MOST,
        "seconds": seconds,
        "cache": size,
        "start": before,
        "peak": watch.stop()["anonymous"],
    }


def warm(folder: Path, began: float) -> dict[str, Any]:
    """A whole run whose tokens and reference are there, with a clock beside it; then the look-ups of a step alone."""
    import statistics

    import torch  # noqa: F401
    import transformers  # noqa: F401

    from alignzoo.core.console import Screen
    from alignzoo.data.token_store import TokenStore
    from alignzoo.reference import cache, scores
    from alignzoo.training import evaluations, policy
    from alignzoo.training import run as run_module
    from alignzoo.training import step as step_module

    clock: dict[str, float] = {"import": time.time() - began}
    last: dict[str, Any] = {}
    watch = Watch()

    def timed(owner: Any, name: str, label: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = real(*arguments, **options)
            clock[label] = clock.get(label, 0.0) + time.perf_counter() - start
            return result

        setattr(owner, name, call)

    steps: list[float] = []
    real_step = step_module.Engine.step

    def step(self: Any, number: int) -> Any:
        last["engine"] = self
        start = time.perf_counter()
        result = real_step(self, number)
        steps.append(time.perf_counter() - start)
        clock.setdefault("first step", time.time() - began)
        return result

    step_module.Engine.step = step  # type: ignore[method-assign]
    for owner, name, label in (
        (run_module, "folder_of", "digest of the data"), (TokenStore, "get", "tokens"), (policy, "load_tokenizer", "model"),
        (policy, "load_policy", "model"), (policy, "choose_layout", "model"), (run_module, "weights_fingerprint", "model"),
        (policy, "score_reference", "reference"), (evaluations, "evaluate", "evaluation"),
        (cache.ReferenceCache, "__post_init__", "cache opened"), (cache.ReferenceCache, "find", "looked up"),
    ):  # fmt: skip
        timed(owner, name, label)
    assert scores
    run = run_module.run_resolved(resolved(folder), screen=Screen(quiet=True))
    own = last["engine"]
    peak, used = watch.stop()["anonymous"], memory()
    evaluations = clock.pop("evaluation") / 2  # at the start and at the end
    return {
        "clock": clock | {"evaluation": evaluations}, "steps": statistics.median(steps[1:]), "memory": used, "peak": peak,
        "probe": probe(own), "finished": run.summary["finished"],
    }  # fmt: skip


def probe(own: Any) -> dict[str, float]:
    """Seconds of what a step does before the model: its rows, their trees, the plan, and the reference's sums."""
    import numpy as np
    import torch

    from alignzoo.scoring.microbatches import plan_micro_batches
    from alignzoo.training.schedule import rows_of_step

    supply, times = own.supply, []
    for number in range(PROBES):
        step = STEPS + number
        start = time.perf_counter()
        rows = rows_of_step(step, len(supply.trees), own.config, own.seed).tolist()
        trees = [supply.tree(row) for row in rows]
        for part in plan_micro_batches(trees, own.budget, own.scorer.layout):
            supply.with_reference(supply.empty([rows[i] for i in part]), torch.device("cpu"))
        times.append(time.perf_counter() - start)
    return {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))}


# --- all of it


def stage(name: str, folder: Path, cache: str, *more: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        environment = os.environ | {"ALIGNZOO_RUNS": runs, "ALIGNZOO_CACHE": str(folder / cache)}
        words = [sys.executable, __file__, "--stage", name, str(folder), *map(str, more)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    print(f"  {name} {more}: {done.stdout.strip()}", flush=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(folder: Path, rows: int) -> dict[str, Any]:
    """All stages of one size, in an empty folder."""
    (folder / "data").mkdir(parents=True)
    write_rows(folder / "data", rows)
    stage("model", folder, "cache")
    one = stage("cold", folder, "one", 1) if rows <= ONE_CORE_MOST else None
    two = stage("cold", folder, "cache", 2)
    filled = stage("fill", folder, "cache")
    stage("warm", folder, "cache", time.time())  # the first one compiles and pages in
    return {"rows": rows, "one": one, "two": two, "fill": filled, "warm": stage("warm", folder, "cache", time.time())}


def table(results: list[dict[str, Any]]) -> list[str]:
    """The figures of all sizes as Markdown."""
    rate = ["| rows | tokenized, rows/s on 1 core | on 2 cores | token store, MiB | cold: memory at the start, peak, MiB | reference cache, MiB | reference pass | its peak, MiB |",
            "|---:|---:|---:|---:|---:|---:|---|---:|"]  # fmt: skip
    flat = ["| rows | plan and look-up a step, ms: median (p95) | whole step, ms | all rows looked up, s | memory after the run, MiB: anonymous (resident) | its peak, anonymous |",
            "|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    start = ["| rows | to the end of the first step, s | of it: imports | digest of the data | tokens | model | reference: cache opened and checked | looked up | evaluation of 256 rows |",
             "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for one in results:
        single, two, filled, warm = one["one"], one["two"], one["fill"], one["warm"]
        clock, used, name = warm["clock"], warm["memory"], f"{one['rows']:,}"
        own = "—" if single is None else f"{single['rows'] / single['seconds']:,.0f}"
        rate.append(
            f"| {name} | {own} | {two['rows'] / two['seconds']:,.0f} | {two['store']:,.1f} | {two['start']:.0f}, {two['peak']:.0f} "
            f"| {filled['cache']:,.1f} | {'the model' if filled['true_pass'] else 'drawn values'} | {filled['peak']:.0f} |"
        )
        flat.append(
            f"| {name} | {1e3 * warm['probe']['median']:.2f} ({1e3 * warm['probe']['p95']:.2f}) | {1e3 * warm['steps']:.0f} "
            f"| {clock['looked up']:.2f} | {used['anonymous']:.0f} ({used['resident']:.0f}) | {warm['peak']:.0f} |"
        )
        names = ("import", "digest of the data", "tokens", "model", "cache opened", "looked up", "evaluation")
        start.append(
            f"| {name} | {clock['first step']:.1f} | " + " | ".join(f"{clock[key]:.2f}" for key in names) + " |"
        )
    return ["## Tokens and scores", "", *rate, "", "## A step", "", *flat, "", "## A warm start", "", *start]


def main(sizes: list[int]) -> None:
    results = []
    for rows in sizes:
        print(f"{rows:,} rows", flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("GROWTH_FOLDER")) as folder:
            results.append(measured(Path(folder) / "growth", rows))
    about = {
        "command": f"python benchmarks/growth.py {' '.join(map(str, sizes))}".strip(),
        "versions": {name: version(name) for name in PACKAGES}, "python": platform.python_version(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }  # fmt: skip
    lengths = results[-1]["two"]["lengths"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    text = [
        "# Growth: from a thousand to a million pairs", "",
        f"Command: `{about['command']}` ({versions}; Python {about['python']}; {about['machine']}).", "",
        f"Synthetic HH dialogues, on average {lengths['prompt']} prompt tokens and {lengths['chosen']} and {lengths['rejected']} "
        f"completion tokens; {HELD_OUT} held-out rows; DPO in batches of 64 with a one-layer policy 16 wide, vocabulary "
        "8,192, float32. Anonymous memory is what no file backs and the kernel can't drop: /proc/self/smaps_rollup. Files are "
        "in the page cache.", "", *table(results),
    ]  # fmt: skip
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "growth.md").write_text("\n".join(text) + "\n")
    (OUTPUT / "growth.json").write_text(json.dumps(about | {"sizes": results}, indent=1) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        name, place, *rest = sys.argv[2:]
        if name == "model":
            write_model(Path(place))
            print("{}")
        else:
            done = {"cold": lambda: cold(Path(place), int(rest[0])), "fill": lambda: fill(Path(place)),
                    "warm": lambda: warm(Path(place), float(rest[0]))}[name]()  # fmt: skip
            print(json.dumps(done))
    else:
        main([int(word.replace(",", "").replace("_", "")) for word in sys.argv[1:]] or list(SIZES))
