"""Inputs that nobody means: recipes, overrides, comparisons and data files, each close to a good one.

A case is a command and the files that it reads; `outcome` runs it through the real entry point. Used by
tests/security/test_fuzz.py and, at length, by benchmarks/faults/fuzz.py.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from checkout import ROOT
from hypothesis import strategies as st

from alignzoo.cli import app as cli
from alignzoo.registry.lookup import registry

GOOD = "\n\nHuman: Hi {n}?\n\nAssistant: "
ROWS = [
    {
        "prompt": f"Q{n}",
        "chosen": GOOD.format(n=n) + "yes, gladly",
        "rejected": GOOD.format(n=n) + "no",
        "margin": n / 2,
    }
    for n in range(40)
]
FROM_NOTHING = """
objective: {objective}
model: {{config: {{model_type: llama, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2}}, tokenizer: {{train: bytes}}}}
train: {{optimizer: {{name: sgd, learning_rate: 0.1}}, batch_size: 2, max_steps: 1}}
eval: {{replies: {{num_prompts: 1, max_new_tokens: 2}}}}
data: {{name: {source}, path: {path}}}
"""
UNICODE = [
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "\ufeff",
    "é" * 50,
    "\u2028",
    "漢字",
    "🙂",
    "\u202ex",
    "\r\n",
    "a\tb",
    "'",
    '"',
    "\\",
]
ODD = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"), 2**31, 2**63, 2**64,
    10**30, -(10**30), "1e5", "null", "~", ".", "..", "./x", "x/y", "/nowhere/x", "toy", "dpo", "nothing", "*", "[", "{}", "a=b",
    "name", "http://u@h/", "%s", "{x}", [], {}, [[]], [None], [1, [2, [3]]], {"": 1}, {"name": None}, {"name": "dpo"},
    {"name": 1}, {"name": ["x"]}, [{"name": "sft"}], {"a": {"b": {"c": {}}}}, ["x"] * 300, "x" * 5000, "./" + "y" * 300, {"name": "dpo", "beta": "x"}, *UNICODE,
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, and files (path below the working folder -> bytes)."""

    kind: str
    words: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """`error` is "" where the case ended as it should: done, or with a message and exit code 2 (1 for a run that
    could not go on)."""

    code: int
    error: str = ""
    trace: str = ""


def workplace(folder: Path) -> None:
    """The shipped recipes, their data a small file; everything stays in this folder."""
    shutil.copytree(ROOT / "recipes", folder / "recipes", dirs_exist_ok=True)
    base = folder / "recipes/bases/hh.yaml"
    base.write_text(base.read_text().replace("path: toy", "path: ../../rows.jsonl"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "mine.py").write_text("raise ValueError('broken')\n")


def outcome(case: Case, folder: Path) -> Outcome:
    """Run it in `folder`, as the console script does."""
    for name, content in case.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    argv, here = sys.argv, Path.cwd()
    sys.argv = ["alignzoo", *case.words]
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8"),
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace"),
    )
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli._exit_code()
        out.flush()
        err.flush()
        said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
        if code not in (0, 2) and not (code == 1 and case.words[0] == "run"):
            return Outcome(code, f"exit code {code}", said)
        if "Traceback" in said:
            return Outcome(code, "a traceback on stderr", said)
        return Outcome(code)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in last if "/alignzoo/" in frame.filename] or last
        return Outcome(
            -1, f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].name}", traceback.format_exc()
        )
    finally:
        os.chdir(here)
        sys.argv = argv
        registry.cache_clear()


def _recipes() -> dict[str, Any]:
    return {
        path.relative_to(ROOT).as_posix(): yaml.safe_load(path.read_text())
        for path in sorted((ROOT / "recipes").rglob("*.yaml"))
        if path.parent.name != "accelerate"  # its launcher's files, no recipes
    }


RECIPES = _recipes()
TEXTS = {name: (ROOT / name).read_bytes() for name in RECIPES}
SINGLE = [name for name in RECIPES if not any(part in name for part in ("/compare/", "/scale/", "/bases/", "fifty"))]


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in ((*at, key), *_places(value, (*at, key)))]


def _at(tree: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        tree = tree[step]
    return tree


LEAVES = [value for tree in RECIPES.values() for place in _places(tree) for value in [_at(tree, place)]]


def _leaf(draw: Any) -> Any:
    """Half of the time something that stands in a recipe, if elsewhere."""
    odd = st.text(max_size=12) | st.integers() | st.floats() | st.lists(st.sampled_from(ODD), max_size=3)
    return copy.deepcopy(draw(st.sampled_from(LEAVES) | st.sampled_from(ODD) | st.sampled_from(LEAVES) | odd))


def _mutated(draw: Any, tree: Any) -> Any:
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = _places(tree)
        if not places:
            break
        *way, key = draw(st.sampled_from(places))
        inner = tree
        for step in way:
            inner = inner[step]
        kind = draw(st.sampled_from(["drop", "rename", "replace", "wrap", "add", "graft"]))
        if kind == "drop":
            del inner[key]
        elif kind == "rename" and isinstance(inner, dict):
            word = str(key)
            cut = draw(st.integers(0, len(word)))
            inner[
                draw(
                    st.sampled_from(
                        [word[:cut] + word[cut + 1 :], word[:cut] + "x" + word[cut:], word.upper(), *UNICODE]
                    )
                )
            ] = inner.pop(key)
        elif kind == "wrap":
            inner[key] = [inner[key]]
        elif kind == "graft":
            other = RECIPES[draw(st.sampled_from(sorted(RECIPES)))]
            *far, last = draw(st.sampled_from(_places(other)))
            for step in far:
                other = other[step]
            inner[key] = copy.deepcopy(other[last])
        elif kind == "add" and isinstance(inner, dict):
            inner[
                draw(
                    st.sampled_from(
                        ["extends", "plugins", "name", "from", "path", "seed", "weight", "modifiers", "extra", ""]
                    )
                )
            ] = _leaf(draw)
        else:
            inner[key] = _leaf(draw)
    return tree


def _yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


TOKENS = [b"\t", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"{", b"}", b"[", b"]", b": ", b"- ", b"\xff", b"\xc3", b"\x00",
          b"\xef\xbb\xbf", b"%YAML 9.9\n", b"---\n", b"...", b"|", b">", b"'", b'"', b"#", b"? ", b"\r", b"0x", b"9" * 5000, b"[" * 60,
          b"&a [*a]", b"\xed\xa0\x80", b"1:2:3", b"2020-01-01", b"=", b"`", b"@", b"!!binary x"]  # fmt: skip


def _broken(draw: Any, text: bytes) -> bytes:
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        at = draw(st.integers(0, len(text)))
        much = draw(st.integers(0, 8))
        text = text[:at] + draw(st.sampled_from([b"", *TOKENS]) | st.binary(max_size=4)) + text[at + much :]
    return text[: draw(st.sampled_from([len(text), len(text), len(text) // 2]))]


@st.composite
def recipes(draw: Any) -> Case:
    """A shipped recipe, mutated as a tree or as bytes, in its place."""
    name = draw(st.sampled_from(sorted(RECIPES)))
    content = _yaml(_mutated(draw, RECIPES[name])) if draw(st.booleans()) else _broken(draw, TEXTS[name])
    if "/scale/" in name or "/bases/" in name:
        words = ("show", draw(st.sampled_from(SINGLE)), "--with", f"{name[:-5]}.fuzz.yaml")
    elif "/compare/" in name:
        return draw(comparisons())
    else:
        words = (draw(st.sampled_from(["show", "show", "validate"])), f"{name[:-5]}.fuzz.yaml")
    if draw(st.booleans()) and words[0] == "show":
        words = (*words, "--origins")
    return Case("recipe", words, ((f"{name[:-5]}.fuzz.yaml", content),))


VALUES: dict[str, list[Any]] = {}
"""Dotted key -> what the shipped recipes have there."""
for _tree in (tree for name, tree in RECIPES.items() if "/compare/" not in name):
    for _place in _places(_tree):
        VALUES.setdefault(".".join(map(str, _place)), []).append(_at(_tree, _place))
KEYS = sorted(VALUES)


MORE_KEYS = ["objective.modifiers", "objective.0.weight", "plugins", "model.from", "data", "train", "seed", "name", "reporters", "eval.judges",
             "eval.metrics.0.name", "", ".", "a..b", "extends"]  # fmt: skip
SPELLINGS = ["{key}={value}"] * 8 + ["{key}:{value}", "{key}", "={value}"]


@st.composite
def overrides(draw: Any) -> Case:
    """A shipped recipe with odd `a.b=c`."""
    words = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        key = draw(st.sampled_from(KEYS) | st.sampled_from(KEYS) | st.sampled_from(MORE_KEYS) | st.text(max_size=6))
        leaf = _own_or_odd(draw, key)
        value = leaf if isinstance(leaf, str) and draw(st.booleans()) else _word(leaf)
        words.append(draw(st.sampled_from(SPELLINGS)).replace("{key}", key).replace("{value}", value))
    command = draw(st.sampled_from(["show", "show", "show", "validate"]))
    return Case("override", (command, draw(st.sampled_from(SINGLE)), "--", *words))


def _own_or_odd(draw: Any, key: str) -> Any:
    """Half of the time what some recipe has there, or a number that may be as good."""
    own = VALUES.get(key, [])
    mild = draw(st.sampled_from([*own, *own, 1, 2, 0.5])) if draw(st.booleans()) else None
    return _leaf(draw) if mild is None else mild


def _word(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()


@st.composite
def comparisons(draw: Any) -> Case:
    """A small comparison, mutated, planned and not run."""
    tree = {"recipes": ["recipes/sft_hh.yaml", "recipes/dpo_hh.yaml"], "seeds": 1, "grid": {"objective.beta": [0.1]}, "baseline": "sft_hh",
            "judges": ["toy"], "set": ["train.epochs=1"], "with": ["recipes/scale/smallest.yaml"], "samples": {"prompts": 4}}  # fmt: skip
    content = _yaml(_mutated(draw, tree)) if draw(st.booleans()) else _broken(draw, _yaml(tree))
    more = draw(st.sampled_from([(), ("--seeds", "0"), ("--grid", "objective.beta=x,"), ("--rows", "seed=1,1"), ("--baseline", "\x00"),
                                 ("--select", "lenght"), ("--judge", "{"), ("--name", "../x"), ("--set", "a=b")]))  # fmt: skip
    return Case("comparison", ("compare", "compare.fuzz.yaml", "--dry-run", *more), (("compare.fuzz.yaml", content),))


@st.composite
def plugins(draw: Any) -> Case:
    """A list of plugin files that are broken in some way."""
    code = draw(st.sampled_from([
        "", "raise SystemExit(3)", "import nothing_like_this", "def (", "x = 1\x00", "from alignzoo import hookimpl\n@hookimpl\ndef register_objectivs(): return []",
        "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(x): return []", "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return 3",
        "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return [int]", "from alignzoo import hookimpl\n@hookimpl\ndef register_metrics(): 1/0",
        "from alignzoo import Objective, hookimpl\nclass A(Objective):\n    '''A.'''\n    name = 'dpo'\n    source = 'x'\n    equation = 'y'\n@hookimpl\ndef register_objectives(): return [A]",
        "# -*- coding: nothing -*-", "\ufeffx = 1", "raise KeyError(b'x')", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    ]))  # fmt: skip
    names = draw(st.sampled_from(["[./f.py]", "[./f.py]", "[./f.py, ./f.py]", "./f.py", "[f.py, mine.py]", "[.]", "[./f]", "[3]", "{a: b}",
                                  "null", "['']", "[./f.py, ./nothing.py]"]))  # fmt: skip
    recipe = f"extends: recipes/sft_hh.yaml\nplugins: {names}\n"
    return Case(
        "plugins",
        (draw(st.sampled_from(["show", "validate"])), "p.yaml"),
        (("p.yaml", recipe.encode()), ("f.py", code.encode("utf-8", "surrogatepass"))),
    )


TURNS = ["Hi", GOOD.format(n=1), GOOD.format(n=1) + "x", "\n\nAssistant: y", "\n\nHuman: z", "", " ", "\x00", "\ud83d", "x" * 20_000, None, 3, 0.5, True, [], {},
         [{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
         [{"role": "wizard", "content": "a"}], [{"role": None, "content": "a"}], [{"role": "user"}], [{"content": "a"}], ["a"], [[]], [{"role": "assistant", "content": [{"type": "text"}]}],
         [{"role": "user", "content": "\ud800"}]]  # fmt: skip
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
    "",
    "Prompt",
    "\ud800",
]
NUMBERS = [
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
    [float("nan"), 1],
]


SUFFIXES = [".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".txt", ""]
WHOLE = [
    b"",
    b"\n",
    b"\xef\xbb\xbf",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 5000,
    b"\x1f\x8b",
    b"PAR1",
    b"\x00" * 100,
]


@st.composite
def data(draw: Any, kind: str = "data", command: tuple[str, ...] = ("data", "inspect")) -> Case:
    """A file of rows, some of them odd, in any of the formats, a third of them broken as bytes."""
    rows: list[Any] = [dict(row) for row in ROWS[: draw(st.sampled_from([0, 2, 12, 12, 40]))]]
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 4]))):
        fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
        odd: Any = {
            name: draw(st.sampled_from(NUMBERS if name in FIELDS[4:10] and draw(st.booleans()) else TURNS))
            for name in fields
        }
        near = dict(ROWS[0]) | odd
        rows.insert(
            draw(st.integers(0, len(rows))),
            draw(st.sampled_from([near, near, near, near, odd, odd, [odd], None, 3, "x"])),
        )
    suffix = draw(st.sampled_from(SUFFIXES))
    content = _encoded(draw, rows, suffix)
    if draw(st.integers(0, 2)) == 0:
        content = _broken(draw, content)
    if draw(st.integers(0, 19)) == 0:
        content = draw(st.sampled_from(WHOLE))
    path = f"rows.fuzz{suffix}"
    source, objective = draw(st.sampled_from(["files", "files", "hh"])), draw(st.sampled_from(["sft", "dpo"]))
    recipe = FROM_NOTHING.format(objective=objective, source=source, path=f"./{path}")
    return Case(kind, (*command, "d.yaml"), ((path, content), ("d.yaml", recipe.encode())))


def _encoded(draw: Any, rows: list[Any], suffix: str) -> bytes:
    if suffix.startswith(".json"):
        lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in rows]
        text = (
            "[" + ",".join(lines) + "]"
            if suffix == ".json"
            else draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)
        ).encode("utf-8", "surrogatepass")
    elif suffix == ".parquet":
        text = _parquet(rows)
    else:
        import csv

        file = io.StringIO()
        records = [row for row in rows if isinstance(row, dict)]
        names = list(dict.fromkeys(name for row in records for name in row))
        writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
        for row in [names, *[[record.get(name, "") for name in names] for record in records]]:
            with contextlib.suppress(csv.Error):
                writer.writerow(row)
        text = file.getvalue().encode("utf-8", "surrogatepass")
    if suffix.endswith(".gz"):
        text = gzip.compress(text, mtime=0)
        text = text[: len(text) - draw(st.sampled_from([0, 0, 1, 8, 30]))]
    return text


def _parquet(rows: list[Any]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    try:
        table = pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)])
        pyarrow.parquet.write_table(table, file)
    except (
        pyarrow.ArrowException,
        UnicodeError,
        OverflowError,
        TypeError,
        ValueError,
    ):  # it can hold less than JSON can
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    return file.getvalue()


SIZES = ["model.config.hidden_size", "model.config.vocab_size", "model.config.num_attention_heads", "model.config.num_hidden_layers",
         "eval.replies.num_prompts", "eval.replies.max_new_tokens", "train.max_steps"]  # fmt: skip
SETTINGS = ["train.epochs", "train.batch_size", "train.optimizer.learning_rate", "tokens.max_length", "tokens.max_prompt_length", "seed",
            "eval.every", "train.micro_batch_tokens", "train.max_grad_norm", "data.held_out_fraction", "data.max_train_rows", "data.held_out_rows",
            "data.label_noise", "model.config.rope_theta", "model.config.pad_token_id", "model.config.initializer_range", "model.dtype",
            "train.checkpoint_every", "train.schedule.warmup_steps", "model.config", "model.tokenizer", "train.precision", "train.device",
            "train.layout", "objective.beta", "train.gradient_checkpointing"]  # fmt: skip
SMALL = [0, 1, 2, 3, 8, 300, -1, 0.5, "x", None, True, [], {}]
LARGE = [*SMALL, 1e-9, 1e9, 1e308, 2**31, 2**63 - 1, 2**64 - 1, "bfloat16", "cuda", "plain"]


@st.composite
def runs(draw: Any) -> Case:
    """A real run of one step on odd data, or with odd settings; sizes stay small, since memory is taken for them."""
    if draw(st.integers(0, 3)) == 0:
        return draw(data("run", ("run",)))
    words = []
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        sizes = draw(st.booleans())
        key, value = (
            draw(st.sampled_from(SIZES if sizes else SETTINGS)),
            draw(st.sampled_from(SMALL if sizes else LARGE)),
        )
        words.append(f"{key}={_word(value)}")
    recipe = FROM_NOTHING.format(objective="dpo", source="files", path="./rows.jsonl")
    return Case("run", ("run", "r.yaml", "--fresh", *words), (("r.yaml", recipe.encode()),))
