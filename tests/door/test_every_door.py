"""Every place that opens or parses a file, other than the door itself: each has its reason here, and a new one fails."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter

from checkout import ROOT

PACKAGE = ROOT / "alignzoo"
DOOR = PACKAGE / "core" / "door"
OPENS = {
    "open", "read_text", "read_bytes", "load", "loads", "safe_load", "load_all", "safe_open", "load_file", "memmap", "fromfile", "genfromtxt",
    "loadtxt", "from_pretrained", "from_file", "load_from_disk", "load_dataset", "read_table", "ParquetFile", "input_stream", "mmap",
    "read_csv", "read_parquet", "read_json", "unpickle", "get_config_dict", "from_json_file", "get_tokenizer_config", "cached_file",
}  # fmt: skip
"""Calls that read or parse, as functions or as methods."""

WRITES = "writes only, to a name of our own"
OURS = "text of this process"
PROC = "the kernel's own file"
INSTALLED = "metadata of an installed package, whose code runs anyway"
ALLOWED = {
    "api/inputs.py": {"open": WRITES},
    "cli/plugin_new.py": {"read_text": "a template in this package", "safe_load": "a word of the command line, in 100 letters"},
    "compare/evaluations.py": {"loads": OURS},
    "core/arrays.py": {"memmap": "a file that open_file gave or this process wrote", "open": WRITES},
    "core/artifacts.py": {"loads": OURS},
    "core/locks.py": {"open": WRITES},
    "core/files.py": {"open": "to flush what was written"},
    "core/streams.py": {"open": "the null device"},
    "core/worker_channel.py": {"loads": "a task of the parent", "open": "the null device"},
    "core/workers.py": {"loads": "a message of a process that this one started"},
    "core/memory.py": {"read_text": PROC},
    "data/packed_rows.py": {"load": "arrays of a child of this process"},
    "data/token_store.py": {"loads": "the tokenizer's own serialization"},
    "data/tree_writer.py": {"open": WRITES},
    "evaluation/judges/math_answers.py": {"mmap": "memory shared with a child, of no file"},
    "registry/loading.py": {"load": "the import of an installed plugin", "read_text": INSTALLED},
    "registry/code.py": {"read_text": INSTALLED},
    "testing/invariance.py": {"loads": OURS},
    "training/checkpoint.py": {
        "load_file": "digests and header were verified", "safe_open": "digests and header were verified",
    },
    "training/draws.py": {"open": WRITES},
    "training/lm_eval.py": {"loads": OURS},
    "training/export.py": {"from_pretrained": "the folder of a finished run, or its base"},
    "training/row_scores.py": {"open": WRITES},
    "training/run_folder.py": {"open": WRITES},
    # Model folders, tokenizers and data files: their own modules translate what the library raises.
    "data/sources/arrow_tables.py": {"ParquetFile": "a table, validated in a child", "loads": "a cell of the data"},
    "data/sources/hub.py": {"load_dataset": "a dataset of the hub"},
    "data/sources/json_records.py": {"loads": "a line of the data"},
    "data/sources/readers.py": {"open": "a data file", "input_stream": "a data file"},
    "models/adapters.py": {"load_file": "an adapter", "loads": "an adapter", "read_text": "an adapter"},
    "models/from_pretrained.py": {"from_pretrained": "every model and tokenizer, whose folder is checked first"},
}  # fmt: skip


def opened() -> dict[str, Counter[str]]:
    """Module -> the calls in it that open or parse."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if DOOR in path.parents:
            continue
        tree = ast.parse(path.read_text())
        ours = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                and (node.module or "").startswith("alignzoo") for alias in node.names}  # fmt: skip
        ours |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        calls = Counter(
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            for name in [node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")]
            if name in OPENS and not (isinstance(node.func, ast.Name) and name in ours)
        )
        if calls:
            found[path.relative_to(PACKAGE).as_posix()] = calls
    return found


def test_nobody_goes_around_the_door():
    found = {(module, call) for module, calls in opened().items() for call in calls}
    allowed = {(module, call) for module, calls in ALLOWED.items() for call in calls}
    assert found - allowed == set(), "read it by a function of alignzoo.core.door, or give a reason in ALLOWED"
    assert allowed - found == set(), "these are gone: take them out of ALLOWED"


def test_every_line_of_the_model_names_a_test():
    """The table of SECURITY.md."""
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.partition("## Bounds")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"\((tests/[\w/]+\.py)\)", row.split("|")[5])
        assert named, row
        assert all((ROOT / path).is_file() for path in named), row


def test_every_bound_is_the_codes_and_names_a_test():
    """The second table of SECURITY.md: a number that changes in the code changes there."""
    text = (ROOT / "SECURITY.md").read_text().partition("## Bounds")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 36
    for row in rows:
        _, what, most, constants, held, _ = map(str.strip, row.split("|"))
        file, *names = re.findall(r"`([^`]+)`", constants) or [""]
        for name in names:
            value = getattr(importlib.import_module("alignzoo." + file.removesuffix(".py").replace("/", ".")), name)
            assert re.search(rf"(?<![\d,]){value:,.0f}(?![\d,]*\d)", f"{what} {most}"), (row, name, value)
        assert names or "linear" in most, row
        name, path = re.fullmatch(r"\[(\w+)\]\((tests/[\w/]+\.py)\)", held).groups()
        functions = {
            node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, row


def test_nothing_unpickles():
    """torch.load, numpy's allow_pickle and pickle itself."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ("torch.load(", "allow_pickle", "import pickle", "import joblib")), path
