"""Cases: a command, the place it runs in, and the files that are changed there first."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import mutate

from alignzoo.core.digests import digest
from alignzoo.core.paths import ABOUT

OK, RUN = (0, 2), (0, 1, 2)
"""Exit codes of a command that reads, and of one that trains or measures, which may find that it can't go on."""


@dataclass(frozen=True)
class Edit:
    """A file of the place that is written, linked or removed."""

    name: str
    content: bytes | None = None
    """None removes it."""
    link: str = ""
    """The target of a symbolic link in its place; "/" at its end makes a folder instead, and "|" a pipe."""

    def apply(self, folder: Path) -> None:
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():  # of an edit before
            path.rmdir()
        path.unlink(missing_ok=True)
        if self.link == "/":
            path.mkdir()
        elif self.link == "|":
            import os

            os.mkfifo(path)
        elif self.link:
            path.symlink_to(self.link)
        elif self.content is not None:
            path.write_bytes(self.content)


@dataclass(frozen=True)
class Case:
    """A command line after `alignzoo`, and what is changed before it."""

    place: str
    words: tuple[str, ...]
    edits: tuple[Edit, ...] = ()
    allowed: tuple[int, ...] = OK


KINDS: dict[str, tuple[float, str, Callable[[Random, Path], Case]]] = {}
"""Name -> its share of the inputs, its place, and a function of a generator and the folder of the places."""


def kind(share: float, place: str) -> Callable[[Callable[[Random, Path], Case]], Callable[[Random, Path], Case]]:
    def register(function: Callable[[Random, Path], Case]) -> Callable[[Random, Path], Case]:
        KINDS[function.__name__] = (share, place, function)
        return function

    return register


@lru_cache
def files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))


def changed(rng: Random, path: Path, root: Path) -> Edit:
    """One file of a place, changed by what it is, or replaced by something that is no file."""
    name, raw = path.relative_to(root).as_posix(), path.read_bytes()
    odd = rng.random()
    if odd < 0.02:
        return Edit(name)
    if odd < 0.06:
        return Edit(name, link=rng.choice(["/dev/zero", "/nowhere", path.name, "/etc/passwd", "/", "|", "."]))
    return Edit(name, content_of(rng, path.name, raw))


def content_of(rng: Random, name: str, raw: bytes) -> bytes:
    """The bytes of a file, changed by its suffix."""
    if name.endswith(".gz") and rng.random() < 0.6:
        return gzip.compress(content_of(rng, name.removesuffix(".gz"), gzip.decompress(raw)), mtime=0)
    if rng.random() < 0.05:
        return rng.choice(mutate.WHOLE)
    if name.endswith(".json"):
        return mutate.mutated_json(rng, raw)
    if name.endswith(".jsonl"):
        return mutate.mutated_lines(rng, raw)
    if name.endswith(".safetensors"):
        return mutate.mutated_safetensors(rng, raw)
    if name.endswith((".yaml", ".yml")):
        return mutate.mutated_yaml(rng, raw)
    return mutate.flipped(rng, raw) if rng.random() < 0.7 else mutate.broken(rng, raw)


@kind(0.2, "model")
def model(rng: Random, places: Path) -> Case:
    """A model's config, weights, index or generation settings."""
    root = places / "model"
    name = rng.choice(["llama", "llama", "sharded", "sharded", "gemma", "experts", "reward"])
    found = [path for path in files(root / name) if "token" not in path.name]
    edits = tuple(changed(rng, rng.choice(found), root) for _ in range(rng.choice([1, 1, 1, 2])))
    command = ("validate",) if name == "reward" else ("validate", "--exactness")
    return Case(
        "model", *((("run", f"{name}.yaml"), edits, RUN) if rng.random() < 0.1 else ((*command, f"{name}.yaml"), edits))
    )


@kind(0.16, "model")
def tokenizer(rng: Random, places: Path) -> Case:
    """A tokenizer's graph, its settings or its chat template."""
    root = places / "model"
    name = rng.choice(["llama", "sharded", "gemma"])
    found = [path for path in files(root / name) if "token" in path.name or path.suffix == ".jinja"]
    edit = changed(rng, rng.choice(found), root)
    if rng.random() < 0.2:
        edit = Edit(f"{name}/chat_template.jinja", rng.choice(TEMPLATES).encode("utf-8", "surrogatepass"))
    return Case("model", ("data", "inspect", f"own_{name}.yaml"), (edit,))


TEMPLATES = [
    "", "{{", "{% for m in messages %}", "{{ messages }}", "{{ 9**(9**(9**9)) }}", "{% for i in range(10**12) %}{% endfor %}",
    "{{ 'a' * 10**11 }}", "{{ ''.__class__.__mro__ }}", "{{ raise_exception('no') }}", "{{ strftime_now('%Y') }}",
    "{{ strftime_now('%Q' * 1000) }}", "{{ messages[0]['x']['y'] }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ tools|tojson }}", "{{ cycler.__init__.__globals__.os.system('touch ran') }}", "\ud800", "{% include '/etc/passwd' %}",
    "{{ messages|map(attribute='content')|join }}", "x", "{% set x = [] %}{% for i in range(99999) %}{{ x.append(x) }}{% endfor %}{{ x }}",
    "{{ '{:>9999999999}'.format(1) }}", "{{ '%9999999999d' % 1 }}", "{{ lipsum(n=10**8) }}", "{{ messages[-1].content * -1 }}{{ 1/0 }}",
]  # fmt: skip


@kind(0.2, "data")
def data(rng: Random, places: Path) -> Case:
    """A file of rows, or a file of a saved dataset."""
    root = places / "data"
    path = rng.choice([path for path in files(root / "rows")])
    top = path.relative_to(root / "rows").parts[0]
    edits = tuple(changed(rng, path, root) for _ in range(1))
    return Case("data", ("data", "inspect", f"{top}.yaml"), edits)


@kind(0.08, "runs")
def cache(rng: Random, places: Path) -> Case:
    """A shard of reference scores, or stored tokens."""
    root = places / "runs"
    edits = tuple(changed(rng, rng.choice(files(root / "cache")), root) for _ in range(rng.choice([1, 1, 3])))
    words = rng.choice(
        [
            ("cache", "ls"),
            ("cache", "verify"),
            ("cache", "prune"),
            ("cache", "prune", "--older-than", "0"),
            ("data", "inspect", "after.yaml"),
            ("run", "after.yaml"),
        ]
    )
    return Case("runs", words, edits, RUN)


def sealed(edits: tuple[Edit, ...], root: Path) -> tuple[Edit, ...]:
    """The edits, and right digests of what they write: whoever can write there can write those too."""
    manifests: dict[Path, Any] = {}
    for edit in edits:
        path = root / edit.name
        about = path.parent / ABOUT
        if edit.content is None or path == about or not about.is_file():
            continue
        tree = manifests.setdefault(about, json.loads(about.read_text()))
        tree["files"][path.name] = hashlib.sha256(edit.content).hexdigest()[:32]  # as digest_file
    for about, tree in manifests.items():
        tree.pop("digest")
        text = json.dumps(tree | {"digest": digest(tree)})
        edits = (*edits, Edit(about.relative_to(root).as_posix(), text.encode()))
    return edits


@kind(0.16, "runs")
def run_folder(rng: Random, places: Path) -> Case:
    """A file of a run or a comparison, its checkpoints included."""
    root = places / "runs"
    runs = [path for path in sorted((root / "runs").iterdir()) if files(path)]
    own = rng.choice(runs)
    edits = tuple(changed(rng, rng.choice(files(own)), root) for _ in range(rng.choice([1, 1, 2])))
    if rng.random() < 0.5:
        edits = sealed(edits, root)
    folder = own.relative_to(root).as_posix()
    name = own.name.split("-")[0]
    words = rng.choice([
        ("run", f"{name}.yaml"), ("run", f"{name}.yaml"), ("report", folder), ("export", folder), ("export", folder, "--merge"),
        ("table", folder), ("rollouts", folder), ("compare", "compare.yaml"), ("show", f"{folder}/recipe.yaml"), ("score", f"{name}.yaml", "-o", "scores.jsonl"),
    ])  # fmt: skip
    return Case("runs", words, edits, RUN)


GOOD = (
    Case("recipes", ("validate", "recipes/dpo_hh.yaml")), Case("recipes", ("run", "small.yaml")),
    Case("recipes", ("compare", "recipes/compare/../sft_hh.yaml", "--dry-run")), Case("recipes", ("show", "recipes/dpo_hh.yaml", "--origins")),
    Case("model", ("validate", "--exactness", "llama.yaml")), Case("model", ("validate", "--exactness", "gemma.yaml")),
    Case("model", ("validate", "--exactness", "experts.yaml")), Case("model", ("validate", "--exactness", "sharded.yaml")),
    Case("model", ("run", "reward.yaml")), Case("model", ("data", "inspect", "own_gemma.yaml")),
    Case("data", ("data", "inspect", "saved.yaml")), Case("data", ("data", "inspect", "plain.parquet.yaml")),
    Case("data", ("data", "inspect", "pairs.csv.zst.yaml")), Case("runs", ("run", "after.yaml")),
    Case("runs", ("run", "lora.yaml", "--fresh")), Case("runs", ("compare", "compare.yaml")), Case("runs", ("cache", "verify")),
    Case("runs", ("run", "online.yaml")),
)  # fmt: skip
"""Commands on unchanged files, which must end with 0. They import what the others do."""
