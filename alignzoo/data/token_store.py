"""The token store: what a recipe's data became, kept on disk, so that the next run on the same data tokenizes nothing.

A folder `tokens/<key>/` of the cache holds

    train.safetensors, held_out.safetensors   the arrays of their `Trees`: ids, columns and sequence keys among them
    held_out.jsonl                            the held-out rows with their texts: samples, judges and metrics read them
    about.json                                the data report, and a digest of every other file

The key is a digest of everything that the tokens depend on: the data, the plugins that read it, `FORMAT_VERSION`, the
tokenizer, the limits, and the shape that objective and metrics ask for. Seed, beta and the objective's name are not in
it. Rows that all are pairs come out the same for every kind of objective, and are kept under a key that all of them
find.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from alignzoo.core.artifacts import atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.digests import digest
from alignzoo.core.errors import NotWritten, UserError
from alignzoo.core.files import translate_os_errors
from alignzoo.core.paths import cache_root
from alignzoo.data.row_reader import RowReader
from alignzoo.data.splits import HELD_OUT, TRAIN
from alignzoo.data.statistics import data_report
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.tokenize_pipeline import TokenizePipeline
from alignzoo.data.tree_writer import stored as stored_part

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.resolved import Resolved

PARTS, HELD_OUT_ROWS = ("train", "held_out"), "held_out.jsonl"
FORMAT_VERSION = 1
"""Of the meaning of what is stored: how alignzoo reads, shapes and tokenizes rows, and the layout of the files. Raise
it with every change of these. Golden folders in the tests show when that was forgotten."""
LIBRARIES = ("tokenizers", "transformers")
WAIT_SECONDS = 900
"""For another process that makes the same tokens; after that both make them, and one is kept."""

Say = Callable[[str], None]


@dataclass
class TokenizedDataset:
    """A recipe's data as trees."""

    train: TokenizedRows
    """Without `rows`: of the training rows nothing is needed once they are tokens."""
    held_out: TokenizedRows
    report: dict[str, Any]
    """What data.json holds."""


class TokenStore:
    """What the recipe's data becomes with this tokenizer, and where that is kept."""

    def __init__(self, resolved: Resolved, tokenizer: PreTrainedTokenizerBase, today: date | None = None) -> None:
        """`today` is the date that a chat template may write: that of the run's first start."""
        self.resolved, self.recipe = resolved, resolved.recipe
        self.tokenizer, self.today = tokenizer, today
        self.root = cache_root() / "tokens"
        origins = [resolved.registry.origin(type(piece)) for piece in self.recipe.data.components]
        self._made_from = digest({
            "data": resolved.data_fingerprint,
            "plugins": [origin.code for origin in origins if origin.package != "alignzoo"],
            "format": FORMAT_VERSION,
            "tokenizer": tokenizer_fingerprint(tokenizer, today),
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

    def get(self, unread: RowReader, say: Say) -> TokenizedDataset:
        """From the store, or made and stored. Raises UserError where reading or tokenizing does."""
        found = self._find(say)
        if found is None:
            with self._alone():
                found = self._find(say) or self._make(unread, say)
        return found

    def _find(self, say: Say) -> TokenizedDataset | None:
        for key in (self._key_of_pairs, self.key):
            folder = self.root / key
            found = self._read(folder)
            if found is not None:
                say(f"tokens: {len(found.train.trees):,} + {len(found.held_out.trees):,} rows from the store")
                return found
            if folder.is_dir():
                say(f"tokens: {folder} is damaged; set aside, its rows are tokenized again")
                quarantine(folder)
        return None

    def _make(self, unread: RowReader, say: Say) -> TokenizedDataset:
        counts = unread.survey
        say(f"tokens: tokenizing {counts.count(TRAIN):,} + {counts.count(HELD_OUT):,} rows")
        folder = self.root / (self._key_of_pairs if counts.pairs else self.key)
        try:
            with atomic_folder(folder) as temporary:
                self._write(temporary, unread)
        except NotWritten as error:
            say(f"tokens: {error}; the next run makes them again")
        return self._read(folder) or self._passing(unread)

    def _write(self, folder: Path, unread: RowReader) -> None:
        work = folder / "work"
        work.mkdir()
        parts = TokenizePipeline(unread, self.tokenizer, self.recipe, work, self.today).prepare(folder / HELD_OUT_ROWS)
        for name, (pile, made) in zip(PARTS, parts, strict=True):
            pile.save(made.trees, folder / f"{name}.safetensors")
        shutil.rmtree(work)
        if self.resolved.digest_data() != self.resolved.data_fingerprint:
            raise UserError(
                "the data has changed since the run's fingerprint was made", where="data",
                expected="files that stay as they are while they are read", hint="the same command starts a new run",
            )  # fmt: skip
        train, held_out = (made for _, made in parts)
        report = data_report(unread.survey.rows, train, held_out, self.recipe.data)
        write_manifest(folder, {"mismatched": train.trees.mismatched, "report": report})

    def _passing(self, unread: RowReader) -> TokenizedDataset:
        """The same for this process alone: its files lose their names at once, and their space when it ends."""
        with translate_os_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), unread)
            found = self._read(Path(folder))
        assert found is not None
        return found

    def _read(self, folder: Path) -> TokenizedDataset | None:
        """What the folder holds, its arrays mapped from the files; None when it is not there, or not what was written.

        The source is told as this recipe has it: its path may have moved.
        """
        about = read_verified(folder)
        if about is None:
            return None
        try:
            train, held_out = (
                stored_part(folder / f"{name}.safetensors", folder / rows if rows else None, about["mismatched"])
                for name, rows in zip(PARTS, (None, HELD_OUT_ROWS), strict=True)
            )
        except FileNotFoundError:  # pruned meanwhile
            return None
        source = {"name": self.recipe.data.name} | self.recipe.data.model_dump(mode="json")
        return TokenizedDataset(train, held_out, about["report"] | {"source": source})

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


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, today: date | None = None) -> str:
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
        "today": (today or date.today()).isoformat() if "strftime_now" in str(template) else None,  # it writes the date
    })  # fmt: skip


def stored(root: Path) -> Sequence[Path]:
    """Every folder of the token store under a cache root."""
    return sorted((root / "tokens").glob("[0-9a-f]*"))


def leftovers(root: Path) -> Sequence[Path]:
    """What processes that broke off left in the token store, and what was damaged."""
    return sorted(path for end in ("tmp", "damaged") for path in (root / "tokens").glob(f".*.{end}"))
