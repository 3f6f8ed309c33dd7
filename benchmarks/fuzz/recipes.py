"""Cases of recipes, overrides, comparisons, plugin files and rows that nobody means."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import artifacts
import mutate
import yaml
from cases import OK, RUN, Case, Edit, kind

ROOT = Path(__file__).parents[2]


def _shipped() -> dict[str, bytes]:
    paths = sorted((ROOT / "recipes").rglob("*.yaml"))
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths if path.parent.name != "accelerate"}


TEXTS = _shipped()
TREES = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
SINGLE = [name for name in TREES if not any(part in name for part in ("/compare/", "/scale/", "/bases/", "fifty"))]
VALUES: dict[str, list[Any]] = {}
"""Dotted key -> what the shipped recipes have there."""
for _name, _tree in TREES.items():
    for _place in mutate.places(_tree) if "/compare/" not in _name else ():
        VALUES.setdefault(".".join(map(str, _place)), []).append(mutate.value_at(_tree, _place))
LEAVES = [value for values in VALUES.values() for value in values]
KEYS = [*sorted(VALUES), "objective.modifiers", "objective.0.weight", "plugins", "model.from", "data", "train", "seed", "name", "reporters",
        "eval.judges", "eval.metrics.0.name", "", ".", "a..b", "extends"]  # fmt: skip
NEW_KEYS = ["extends", "plugins", "name", "from", "path", "seed", "weight", "modifiers", "extra", ""]


def _small(command: str) -> tuple[str, ...]:
    """Options that keep a recipe that is accepted from tokenizing thousands of rows, which is its right."""
    return ("--with", "recipes/scale/smallest.yaml") if command == "validate" else ()


def _yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


def _mutated(rng: Random, name: str) -> bytes:
    if rng.random() < 0.5:
        return _yaml(mutate.mutated(rng, TREES[name], LEAVES, NEW_KEYS))
    return mutate.broken(rng, TEXTS[name])


@kind(0.08, "recipes")
def recipe(rng: Random, places: Path) -> Case:
    """A shipped recipe, in its place."""
    name = rng.choice([one for one in TREES if "/compare/" not in one])
    own = f"{name[:-5]}.fuzz.yaml"
    command = rng.choice(["show", "show", "validate"])
    if "/scale/" in name or "/bases/" in name:
        words: tuple[str, ...] = (command, rng.choice(SINGLE), "--with", own)
    else:
        words = (command, own)
    return Case(
        "recipes",
        (*words, "--origins") if command == "show" and rng.random() < 0.3 else (*words, *_small(command)),
        (Edit(own, _mutated(rng, name)),),
    )


@kind(0.05, "recipes")
def override(rng: Random, places: Path) -> Case:
    """A shipped recipe with odd `a.b=c`."""
    words = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        key = rng.choice(KEYS)
        value = rng.choice([*VALUES.get(key, []), 1, 2, 0.5]) if rng.random() < 0.4 else mutate.leaf(rng, LEAVES)
        word = value if isinstance(value, str) and rng.random() < 0.5 else _word(value)
        spelling = rng.choice(["{key}={value}"] * 8 + ["{key}:{value}", "{key}", "={value}"])
        words.append(spelling.replace("{key}", key).replace("{value}", word).replace("\0", "0"))
    command = rng.choice(["show", "show", "validate"])
    return Case("recipes", (command, rng.choice(SINGLE), *_small(command), "--", *words))


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()


COMPARISON = {
    "recipes": ["recipes/sft_hh.yaml", "recipes/dpo_hh.yaml"], "seeds": 1, "grid": {"objective.beta": [0.1]}, "baseline": "sft_hh",
    "judges": ["toy"], "set": ["train.epochs=1"], "with": ["recipes/scale/smallest.yaml"], "samples": {"prompts": 4},
}  # fmt: skip
OPTIONS: list[tuple[str, ...]] = [
    (), (), ("--seeds", "0"), ("--grid", "objective.beta=x,"), ("--rows", "seed=1,1"), ("--select", "accuracyy"), ("--judge", "{"),
    ("--name", "../x"), ("--set", "a=b"), ("--baseline", "\x1b[31m"),
]  # fmt: skip


@kind(0.02, "recipes")
def comparison(rng: Random, places: Path) -> Case:
    """A small comparison, planned and not run."""
    tree = mutate.mutated(rng, COMPARISON, LEAVES)
    content = _yaml(tree) if rng.random() < 0.5 else mutate.broken(rng, _yaml(COMPARISON))
    return Case(
        "recipes",
        ("compare", "compare.fuzz.yaml", "--dry-run", *rng.choice(OPTIONS)),
        (Edit("compare.fuzz.yaml", content),),
    )


CODE = [
    "", "raise SystemExit(3)", "import nothing_like_this", "def (", "x = 1\x00", "raise KeyError(b'x')", "# -*- coding: nothing -*-", "\ufeffx = 1",
    "from alignzoo import hookimpl\n@hookimpl\ndef register_objectivs(): return []", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(x): return []", "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return 3",
    "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return [int]", "from alignzoo import hookimpl\n@hookimpl\ndef register_metrics(): 1/0",
    "from alignzoo import Objective, hookimpl\nclass A(Objective):\n    '''A.'''\n    name = 'dpo'\n    source = 'x'\n    equation = 'y'\n@hookimpl\ndef register_objectives(): return [A]",
]  # fmt: skip
LISTS = [
    "[./f.py]",
    "[./f.py]",
    "[./f.py, ./f.py]",
    "./f.py",
    "[f.py, mine.py]",
    "[.]",
    "[./f]",
    "[3]",
    "{a: b}",
    "null",
    "['']",
    "[./f.py, ./nothing.py]",
]


@kind(0.01, "recipes")
def plugin(rng: Random, places: Path) -> Case:
    """A list of plugin files that are broken in some way."""
    words = (rng.choice(["show", "validate"]), "p.yaml")
    recipe = f"extends: recipes/sft_hh.yaml\nplugins: {rng.choice(LISTS)}\n"
    return Case(
        "recipes",
        words,
        (Edit("p.yaml", recipe.encode()), Edit("f.py", rng.choice(CODE).encode("utf-8", "surrogatepass"))),
    )


GOOD = artifacts.GOOD.format(n=1)
TURNS: list[Any] = [
    "Hi", GOOD, GOOD + "x", "\n\nAssistant: y", "\n\nHuman: z", "", " ", "\x00", "\ud83d", "x" * 20_000, "x" * 2_000_000, None, 3, 0.5, True, [], {},
    [{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [{"role": "wizard", "content": "a"}], [{"role": None, "content": "a"}], [{"role": "user"}], [{"content": "a"}], ["a"], [[]],
    [{"role": "assistant", "content": [{"type": "text"}]}], [{"role": "user", "content": "\ud800"}],
    [{"role": "assistant", "content": None, "tool_calls": [{"function": 3}]}],
]  # fmt: skip
FIELDS = [
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "completions",
    "scores",
    "ranks",
    "margin",
    "id",
    "tools",
    "",
    "Prompt",
    "\ud800",
]
NUMBERS: list[Any] = [
    0,
    1,
    -1,
    1e308,
    float("nan"),
    float("inf"),
    10**30,
    10**400,
    True,
    None,
    "1",
    "",
    [1, 2],
    ["a", "b"],
    [0.1, "x"],
    [None, 1],
]
SUFFIXES = [".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".txt", ""]


@kind(0.08, "recipes")
def rows(rng: Random, places: Path) -> Case:
    """A file of rows, some of them odd, in any of the formats, a third of them broken as bytes."""
    found: list[Any] = [dict(row) for row in artifacts.PAIRS[: rng.choice([0, 2, 12, 24])]]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        fields = rng.sample(FIELDS, rng.randint(0, 3))
        odd = {name: rng.choice(NUMBERS if name in FIELDS[4:10] and rng.random() < 0.5 else TURNS) for name in fields}
        near = dict(artifacts.PAIRS[0]) | odd
        found.insert(rng.randint(0, len(found)), rng.choice([near, near, near, near, odd, odd, [odd], None, 3, "x"]))
    suffix = rng.choice(SUFFIXES)
    content = _encoded(rng, found, suffix)
    content = mutate.broken(rng, content) if rng.random() < 0.33 else content
    path = f"rows.fuzz{suffix}"
    text = artifacts.recipe(f"./{path}", rng.choice(["sft", "dpo"])).replace(
        "name: files", f"name: {rng.choice(['files', 'files', 'hh'])}"
    )
    words = ("run", "d.yaml") if rng.random() < 0.05 else ("data", "inspect", "d.yaml")
    return Case(
        "recipes", words, (Edit(path, content), Edit("d.yaml", text.encode())), RUN if words[0] == "run" else OK
    )


def _encoded(rng: Random, rows: list[Any], suffix: str) -> bytes:
    if suffix.startswith(".json"):
        lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows]
        ends = "[" + ",".join(lines) + "]" if suffix == ".json" else rng.choice(["\n", "\r\n", "\n\n"]).join(lines)
        text = ends.encode("utf-8", "surrogatepass")
    elif suffix == ".parquet":
        text = _parquet([row for row in rows if isinstance(row, dict)])
    else:
        file, records = io.StringIO(), [row for row in rows if isinstance(row, dict)]
        names = list(dict.fromkeys(name for row in records for name in row))
        writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
        for row in [names, *[[record.get(name, "") for name in names] for record in records]]:
            try:
                writer.writerow(row)
            except csv.Error:
                continue
        text = file.getvalue().encode("utf-8", "surrogatepass")
    if suffix.endswith(".gz"):
        text = gzip.compress(text, mtime=0)
        text = text[: len(text) - rng.choice([0, 0, 1, 8, 30])]
    return text


def _parquet(rows: list[Any]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    except (pyarrow.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):  # it holds less than JSON does
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(artifacts.PAIRS), file)
    return file.getvalue()


SIZES = ["model.config.hidden_size", "model.config.vocab_size", "model.config.num_attention_heads", "model.config.num_hidden_layers",
         "eval.replies.num_prompts", "eval.replies.max_new_tokens", "train.max_steps"]  # fmt: skip
SETTINGS = [
    "train.epochs", "train.batch_size", "train.optimizer.learning_rate", "tokens.max_length", "tokens.max_prompt_length", "seed", "eval.every",
    "train.micro_batch_tokens", "train.max_grad_norm", "data.held_out_fraction", "data.max_train_rows", "data.held_out_rows", "data.label_noise",
    "model.config.rope_theta", "model.config.pad_token_id", "model.config.initializer_range", "model.dtype", "train.checkpoint_every",
    "train.schedule.warmup_steps", "model.config", "model.tokenizer", "train.precision", "train.device", "train.layout", "objective.beta",
    "train.gradient_checkpointing",
]  # fmt: skip
SMALL: list[Any] = [0, 1, 2, 3, 8, 60, -1, 0.5, "x", None, True, [], {}]
"""A run of 300 layers takes more than 10 s, as it was told to."""
LARGE: list[Any] = [*SMALL, 1e-9, 1e9, 1e308, 2**31, 2**63 - 1, 2**64 - 1, "bfloat16", "cuda", "plain"]


@kind(0.02, "recipes")
def setting(rng: Random, places: Path) -> Case:
    """A real run of two steps with odd settings; sizes stay small, since memory is taken for them."""
    words = []
    for _ in range(rng.choice([1, 1, 2])):
        key, value = (
            (rng.choice(SIZES), rng.choice(SMALL)) if rng.random() < 0.5 else (rng.choice(SETTINGS), rng.choice(LARGE))
        )
        words.append(f"{key}={_word(value)}")
    return Case("recipes", ("run", "small.yaml", *words), (), RUN)
