"""The token store: what a recipe's data became, kept on disk, so that the next run on the same data tokenises nothing.

A folder `tokens/<key>/` of the cache holds

    train.safetensors, held_out.safetensors   the arrays of their `Trees`, columns among them
    train.json                                the ids of the training rows
    held_out.jsonl                            the held-out rows with their texts: samples, judges and metrics read them
    about.json                                the data report, and a digest of every other file

The key is a digest of everything that the tokens depend on: the data and the code that reads it, the tokenizer, the
limits, and the shape that objective and metrics ask for. Seed, beta and the objective's name are not in it. Rows that
all are pairs come out the same for every kind of objective, and are kept under a key that all of them find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import save_file

from alignzoo.data import Rows, Tokenised, data_report, prepare, read_rows
from alignzoo.data.rows import Completion, Row, Text
from alignzoo.data.sealed import digest, new_folder, opened, seal, set_aside
from alignzoo.data.source import DataSource, content_of
from alignzoo.paths import cache_root
from alignzoo.tree import Trees

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe import Resolved

ARRAYS, COLUMN = ("tokens", "segments", "trees", "scored_from"), "column "
OWN_CODE = [Path(__file__).parent / name for name in (".", "formats", "sources", "sample")]
"""alignzoo's own reading and tokenising: what another version of it made is another thing, as with a plugin's."""
LIBRARIES = ("tokenizers", "transformers")
WAIT_SECONDS = 900
"""For another process that makes the same tokens; after that both make them, and one is kept."""

Say = Callable[[str], None]


class Unread:
    """A source's rows: read once, and only if somebody looks at them. Iterating gives the training rows."""

    def __init__(self, source: DataSource) -> None:
        self.source = source

    @cached_property
    def rows(self) -> Rows:
        """All of them."""
        return read_rows(self.source)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows.train)


@dataclass
class Prepared:
    """A recipe's data as trees."""

    train: Tokenised
    """Without `rows`: of the training rows nothing is needed once they are tokens."""
    held_out: Tokenised
    report: dict[str, Any]
    """What data.json holds."""


class TokenStore:
    """What the recipe's data becomes with this tokenizer, and where that is kept."""

    def __init__(self, resolved: Resolved, tokenizer: PreTrainedTokenizerBase) -> None:
        self.recipe, self.tokenizer = resolved.recipe, tokenizer
        self.root = cache_root() / "tokens"
        origins = [resolved.registry.origin(type(piece)) for piece in self.recipe.data.pieces]
        self._made_from = digest({
            "data": self.recipe.data.fingerprint(),
            "plugins": [origin.file_hash for origin in origins if origin.package != "alignzoo"],
            "code": [content_of(folder) for folder in OWN_CODE],
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "tokens": self.recipe.tokens.model_dump(mode="json"),
        })  # fmt: skip
        terms, metrics = [term for _, term in self.recipe.objective.terms], self.recipe.eval.metrics
        asked: list[dict[str, Any]] = [
            {
                "kinds": sorted({one.data for one in asking}),
                "columns": sorted({name for one in asking for name in one.columns}),
            }
            for asking in (terms, metrics)
        ]
        mismatched = self.recipe.objective.mismatched
        self.key = digest([self._made_from, asked, mismatched])
        """32 hex digits of everything that the trees depend on."""
        of_pairs = [{"labels": "unpaired" in one["kinds"], "columns": one["columns"]} for one in asked]
        self._key_of_pairs = digest([self._made_from, of_pairs, mismatched])

    def get(self, unread: Unread, say: Say) -> Prepared:
        """From the store, or made and stored. Raises UserError where reading or tokenising does."""
        found = self._find(say)
        if found is None:
            with self._alone():
                found = self._find(say) or self._make(unread.rows, say)
        return found

    def _find(self, say: Say) -> Prepared | None:
        for key in (self._key_of_pairs, self.key):
            folder = self.root / key
            found = self._read(folder)
            if found is not None:
                say(f"tokens: {len(found.train.trees):,} + {len(found.held_out.trees):,} rows from the store")
                return found
            if folder.is_dir():
                say(f"tokens: {folder} is damaged; set aside, its rows are tokenised again")
                set_aside(folder)
        return None

    def _make(self, rows: Rows, say: Say) -> Prepared:
        say(f"tokens: tokenising {len(rows.train):,} + {len(rows.held_out):,} rows")
        train = prepare(rows.train, self.tokenizer, self.recipe)
        held_out = prepare(rows.held_out, self.tokenizer, self.recipe, self.recipe.eval.metrics)
        made = Prepared(train, held_out, data_report(rows, train, held_out, self.recipe.data))
        pairs = all(len(row.completions) == 2 for part in (rows.train, rows.held_out) for row in part)
        folder = self.root / (self._key_of_pairs if pairs else self.key)
        try:
            with new_folder(folder) as temporary:
                _write(temporary, made)
        except OSError as error:
            say(f"tokens: they could not be stored ({error}); the next run makes them again")
        train.rows = []
        return self._read(folder) or made

    def _read(self, folder: Path) -> Prepared | None:
        """What the folder holds, its arrays mapped from the files; None when it is not there, or not what was written.

        The source is told as this recipe has it: its path may have moved.
        """
        about = opened(folder)
        if about is None:
            return None
        try:
            ids = json.loads((folder / "train.json").read_text(encoding="utf-8"))
            lines = (folder / "held_out.jsonl").read_text(encoding="utf-8").split("\n")
            rows = [_row(json.loads(line)) for line in lines if line]
            train = _trees(folder / "train.safetensors", ids, about["mismatched"])
            held_out = _trees(folder / "held_out.safetensors", [row.id for row in rows], about["mismatched"])
        except FileNotFoundError:  # pruned meanwhile
            return None
        source = {"name": self.recipe.data.name} | self.recipe.data.model_dump(mode="json")
        return Prepared(Tokenised(train, []), Tokenised(held_out, rows), about["report"] | {"source": source})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making the same tokens meanwhile, where the file system has locks."""
        lock = FileLock(self.root / f".{self._made_from}.lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=WAIT_SECONDS)
        except (OSError, NotImplementedError):  # a timeout too: without the lock there may be work done twice, no harm
            pass
        try:
            yield
        finally:
            lock.release()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hex digits of all that decides what a text becomes: vocabulary, special tokens, chat template, code."""
    cls, template = type(tokenizer), tokenizer.chat_template
    state: Any = [tokenizer.get_vocab(), tokenizer.init_kwargs | {"name_or_path": None}]
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        for passing in ("truncation", "padding"):  # of the last call
            state.pop(passing, None)
    return digest({
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "libraries": {name: version(name) for name in LIBRARIES},
        "state": state,
        "special": [tokenizer.special_tokens_map, tokenizer.bos_token_id, tokenizer.eos_token_id],
        "split": getattr(tokenizer, "split_special_tokens", None),
        "template": template,
        "today": date.today().isoformat() if "strftime_now" in str(template) else None,  # it writes the date
    })  # fmt: skip


def stored(root: Path) -> Sequence[Path]:
    """Every folder of the token store under a cache root."""
    return sorted((root / "tokens").glob("[0-9a-f]*"))


def leftovers(root: Path) -> Sequence[Path]:
    """What processes that broke off left in the token store, and what was damaged."""
    return sorted(path for end in ("tmp", "damaged") for path in (root / "tokens").glob(f".*.{end}"))


def _write(folder: Path, made: Prepared) -> None:
    for name, part in (("train", made.train), ("held_out", made.held_out)):
        trees = part.trees
        arrays: dict[str, NDArray[Any]] = {key: getattr(trees, key) for key in ARRAYS}
        arrays |= {COLUMN + column: values for column, values in trees.columns.items()}
        save_file(arrays, folder / f"{name}.safetensors")
    (folder / "train.json").write_text(json.dumps(made.train.trees.ids), encoding="utf-8")
    lines = [json.dumps(_plain(row)) + "\n" for row in made.held_out.rows]
    (folder / "held_out.jsonl").write_text("".join(lines), encoding="utf-8")
    seal(folder, {"mismatched": made.train.trees.mismatched, "report": made.report})


def _trees(path: Path, ids: list[str], mismatched: bool) -> Trees:
    arrays = _mapped(path)
    columns = {name.removeprefix(COLUMN): values for name, values in arrays.items() if name.startswith(COLUMN)}
    tokens, segments, trees, scored_from = (arrays[name] for name in ARRAYS)
    return Trees(ids, tokens, segments, trees, scored_from, columns, mismatched)


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, mapped and not read. Writing to one changes no file, only this copy."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    raw = np.memmap(path, np.uint8, "c").view(np.ndarray)[8 + size :]
    types = {"I32": np.int32, "I64": np.int64, "F32": np.float32}
    return {
        name: raw[slice(*about["data_offsets"])].view(types[about["dtype"]]).reshape(about["shape"])
        for name, about in header.items() if name != "__metadata__"
    }  # fmt: skip


def _plain(row: Row) -> dict[str, Any]:
    return {
        "id": row.id, "prompt": _as_json(row.prompt), "group": row.group, "columns": _numbers(row.columns),
        "completions": [[_as_json(one.text), one.context, _numbers(one.columns)] for one in row.completions],
    }  # fmt: skip


def _row(plain: Mapping[str, Any]) -> Row:
    completions = tuple(Completion(_as_text(text), *others) for text, *others in plain["completions"])
    return Row(plain["id"], _as_text(plain["prompt"]), completions, plain["group"], plain["columns"])


def _as_json(text: Text) -> str | list[dict[str, str]]:
    return text if isinstance(text, str) else [dict(message) for message in text]


def _as_text(value: Any) -> Text:
    return value if isinstance(value, str) else tuple(value)


def _numbers(columns: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in columns.items()}  # a source may give numpy's
