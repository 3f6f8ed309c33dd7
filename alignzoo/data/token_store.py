"""Cache the token trees of a recipe's data on disk, shared by all runs on the same data.

A folder `tokens/<key>/` of the cache contains

    train.safetensors, held_out.safetensors   the arrays of their `Trees`, with ids, columns and sequence keys
    held_out.jsonl                            the held-out rows with their texts, for samples, judges and metrics
    content.safetensors                       hashes of the prompts and rows of both sides, to find rows that are in two
    train.jsonl                               the first training rows, to be shown; all where `rollout` has judges
    about.json                                the data report, and a digest of every other file

The key is a digest of everything that the tokens depend on: the data, the plugins that read it, `FORMAT_VERSION`, the
tokenizer, the limits, and the shape that the objective and the metrics need. It is independent of the seed, of beta and
of the objective's name. Data that consists of pairs alone has the same trees for every kind of objective, and is stored
under a key common to all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from alignzoo.core.arrays import in_parts, mmap_safetensors
from alignzoo.core.artifacts import Manifest, atomic_folder, quarantine, read_verified, write_manifest
from alignzoo.core.digests import digest
from alignzoo.core.door import BadFile, MissingFile, UnreadableFile
from alignzoo.core.errors import NotWritten, UserError, first_line
from alignzoo.core.files import is_left_over, translate_os_errors
from alignzoo.core.locks import locked_if_possible
from alignzoo.core.paths import cache_root
from alignzoo.data.content import Content
from alignzoo.data.row_reader import RowReader
from alignzoo.data.split_plan import HELD_OUT, TRAIN
from alignzoo.data.statistics import data_report
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.data.tokenize_pipeline import TokenizePipeline
from alignzoo.data.tree_writer import read_stored
from alignzoo.interfaces.rows import TIE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignzoo.recipe.resolved import Resolved

PARTS, TRAIN_ROWS, HELD_OUT_ROWS = ("train", "held_out"), "train.jsonl", "held_out.jsonl"
CONTENT = "content.safetensors"
FORMAT_VERSION = 8
"""Version of the stored tokens: the way rows are read, converted and tokenized, and the layout of the files.

Raise it with every change of these, and write new golden folders with tests/golden_tokens.py."""
FIRST = 8
"""Training rows whose texts are kept, to be shown."""
LIBRARIES = ("tokenizers", "transformers")

Log = Callable[[str], None]
"""Function that shows one line to the user."""


@dataclass
class TokenizedDataset:
    """Token trees of a recipe's data."""

    train: TokenizedRows
    """Training trees. Their rows are kept only for a recipe with `rollout`, whose judges read the prompts."""
    held_out: TokenizedRows
    report: dict[str, Any]
    """Content of data.json."""
    content: Content
    """Hashes of the training rows, or of an evaluation set's rows."""
    evaluation: dict[str, TokenizedRows] = field(default_factory=dict)
    """The rows of each evaluation set."""

    @property
    def evaluated(self) -> dict[str, TokenizedRows]:
        """Everything that is evaluated: the held-out rows, and each evaluation set.

        Held-out rows have an empty name, and no entry if there are none.
        """
        held_out = {"": self.held_out} if len(self.held_out.trees) else {}
        return held_out | self.evaluation

    @property
    def splits(self) -> list[str]:
        """`train`, `held_out` if there are held-out rows, and the names of the evaluation sets."""
        return ["train", *(name or "held_out" for name in self.evaluated)]

    def part(self, split: str) -> TokenizedRows:
        """Return the rows of one of `splits`."""
        return {"train": self.train, "held_out": self.held_out}.get(split) or self.evaluation[split]

    @property
    def answered(self) -> TokenizedRows:
        """The first rows of `evaluated`, whose prompts are answered and figures compared."""
        return next(iter(self.evaluated.values()), self.held_out)


class TokenStore:
    """Stored token trees of one recipe and tokenizer.

    Args:
        resolved: The recipe with its data fingerprint.
        tokenizer: The policy's tokenizer.
        today: Date that a chat template may format: that of the run's first start. None means the current date.
        evaluation: Name of the evaluation set that is stored, as held-out rows. None for the recipe's data.
    """

    def __init__(
        self, resolved: Resolved, tokenizer: PreTrainedTokenizerBase, today: date | None = None,
        evaluation: str | None = None,
    ) -> None:  # fmt: skip
        self.resolved, self.recipe, self.evaluation = resolved, resolved.recipe, evaluation
        self.tokenizer, self.today = tokenizer, today
        self.source = resolved.source(evaluation)
        self._data = resolved.data_fingerprint if evaluation is None else resolved.evaluation_fingerprints[evaluation]
        self.root = cache_root() / "tokens"
        terms, metrics = [term for _, term in self.recipe.objective.terms], self.recipe.eval.metrics
        origins = [resolved.registry.origin(type(component)) for component in self.source.components]
        self._inputs = digest({
            "data": self._data if evaluation is None else [self._data, "evaluation"],
            "plugins": [origin.code for origin in origins if origin.package != "alignzoo"],
            "format": FORMAT_VERSION,
            "tokenizer": tokenizer_fingerprint(tokenizer, today),
            "tokens": self.recipe.tokens.model_dump(mode="json"),
            "at_least": max((term.min_completions for term in terms if term.data == "ranked"), default=0),
        })  # fmt: skip
        needs: list[dict[str, Any]] = [
            {
                "kinds": sorted({one.data for one in consumers}),
                "columns": sorted({name for one in consumers for name in one.columns} | ties),
            }
            for consumers, ties in ((terms, {TIE} if self.recipe.objective.ties else set()), (metrics, set()))
        ]
        mismatched = self.recipe.objective.mismatched
        self._keeps_rows = self.recipe.drawing is not None
        chosen_by = mismatched and "place"  # the rule of `with_mismatched`, part of what the trees depend on
        rest: list[bool | str] = [chosen_by, "prompts"] if self.recipe.rollout is not None else [chosen_by]
        if self.recipe.rollout is not None and self.recipe.rollout.pairs == "data":
            rest.append("completions")
        if self.recipe.draw is not None:
            rest.append("prompts of both sides")
        self.key = digest([self._inputs, needs, *rest])
        """32 hex digits that identify everything the trees depend on."""
        needs_of_pairs = [{"labels": "unpaired" in one["kinds"], "columns": one["columns"]} for one in needs]
        self._key_of_pairs = digest([self._inputs, needs_of_pairs, *rest])

    def get(self, reader: RowReader, log: Log) -> TokenizedDataset:
        """Read the trees from the store, or make and store them.

        Raises:
            UserError: The rows can't be read or tokenized, or the data changed since its fingerprint was computed.
        """
        dataset = self._find(log)
        if dataset is None:
            lock = self.root / f".{self._inputs}.lock"
            with locked_if_possible(lock, log, f"{self._label}: these rows are tokenized"):
                dataset = self._find(log) or self._make(reader, log)
        return dataset

    @property
    def _label(self) -> str:
        return "tokens" if self.evaluation is None else f"tokens of eval.data.{self.evaluation}"

    def _sizes(self, train: int, held_out: int) -> str:
        return f"{train:,} + {held_out:,}" if self.evaluation is None else f"{held_out:,}"

    def _find(self, log: Log) -> TokenizedDataset | None:
        for key in (self._key_of_pairs, self.key):
            folder = self.root / key
            try:
                dataset = self._read(folder)
            except UnreadableFile as error:  # of another user; it stays
                log(f"tokens: {first_line(error)}; its rows are tokenized again")
                continue
            except BadFile as error:
                log(f"tokens: {first_line(error)}; set aside, its rows are tokenized again")
                quarantine(folder)
                continue
            if dataset is not None:
                sizes = self._sizes(len(dataset.train.trees), len(dataset.held_out.trees))
                log(f"{self._label}: {sizes} rows from the store")
                return dataset
        return None

    def _make(self, reader: RowReader, log: Log) -> TokenizedDataset:
        plan = reader.plan
        log(f"{self._label}: tokenizing {self._sizes(plan.count(TRAIN), plan.count(HELD_OUT))} rows")
        folder = self.root / (self._key_of_pairs if plan.pairs else self.key)
        try:
            with atomic_folder(folder) as temporary:
                self._write(temporary, reader)
        except NotWritten as error:
            log(f"tokens: {error}; the next run makes them again")
        try:
            return self._read(folder) or self._make_unnamed(reader)
        except BadFile:  # the folder of another user stays where this one can't read it
            return self._make_unnamed(reader)

    def _write(self, folder: Path, reader: RowReader) -> None:
        work = folder / "work"
        work.mkdir()
        pipeline = TokenizePipeline(reader, self.tokenizer, self.recipe, work, self.today)
        parts = pipeline.prepare(folder / HELD_OUT_ROWS, folder / TRAIN_ROWS, None if self._keeps_rows else FIRST)
        for name, (writer, prepared) in zip(PARTS, parts, strict=True):
            writer.save(prepared.trees, folder / f"{name}.safetensors")
        shutil.rmtree(work)
        content = reader.plan.content(HELD_OUT if reader.evaluation else TRAIN)
        save_file({"prompts": content.prompts, "rows": content.rows}, folder / CONTENT)
        if self.resolved.digest_data(self.evaluation) != self._data:
            raise UserError(
                "the data has changed since the run's fingerprint was computed", where="data",
                expected="files that do not change while they are read", hint="the same command starts a new run",
            )  # fmt: skip
        train, held_out = (prepared for _, prepared in parts)
        report = data_report(reader.plan.rows, train, held_out, self.source)
        mismatched = train.trees.mismatched or held_out.trees.mismatched  # prompts alone have none
        write_manifest(folder, {"mismatched": mismatched, "report": report})

    def _make_unnamed(self, reader: RowReader) -> TokenizedDataset:
        """Make the trees in deleted files, which stay mapped until this process ends."""
        with translate_os_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), reader)
            dataset = self._read(Path(folder))
        assert dataset is not None
        return dataset

    def _read(self, folder: Path) -> TokenizedDataset | None:
        """Memory-map a folder's arrays; None if there is no folder.

        Raises:
            BadFile: The folder is damaged.
        """
        try:
            about, train, held_out = read_folder(folder)
            content = read_content(folder / CONTENT)
        except MissingFile:  # or removed by another process
            return None
        most = vocabulary_size(self.tokenizer)
        for part in (train, held_out):
            if any(ids.max() >= most for ids in in_parts(part.trees.tokens)):
                raise BadFile("damaged: a token id is not the tokenizer's", where=str(folder))
        # The report names the source as this recipe does: the files may have moved.
        source = self.source.model_dump(mode="json", by_alias=True)
        return TokenizedDataset(train, held_out, about["report"] | {"source": source}, content)


class TokensManifest(Manifest):
    """The about.json of a folder of the token store."""

    mismatched: bool
    report: dict[str, Any]


def read_folder(folder: Path) -> tuple[dict[str, Any], TokenizedRows, TokenizedRows]:
    """Return about.json, and the training and the held-out trees of a folder, all checked.

    The trees are memory-mapped.

    Raises:
        MissingFile: There is no such folder.
        UnreadableFile: This user can't read it.
        BadFile: It is damaged.
    """
    about = read_verified(folder, TokensManifest)
    if about is None:
        kind = BadFile if os.path.lexists(folder) else MissingFile  # or a file, or a link to nothing
        raise kind("damaged" if kind is BadFile else "no such folder", where=str(folder))
    train, held_out = (
        read_stored(folder / f"{name}.safetensors", folder / rows, about["mismatched"])
        for name, rows in zip(PARTS, (TRAIN_ROWS, HELD_OUT_ROWS), strict=True)
    )
    return about, train, held_out


def read_content(path: Path) -> Content:
    """Memory-map the hashes of a folder. Raises BadFile where the file is damaged."""
    arrays = mmap_safetensors(path)
    names = ("prompts", "rows")
    if set(arrays) != set(names) or any(arrays[name].dtype != np.int64 or arrays[name].ndim > 1 for name in names):
        raise BadFile("damaged: it lacks the hashes of prompts and rows", where=str(path))
    return Content(*(arrays[name] for name in names))


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of embeddings needed: the highest id + 1.

    It exceeds `len(tokenizer)` if ids have gaps.
    """
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, today: date | None = None) -> str:
    """Return 32 hex digits that identify a tokenizer and its chat template.

    They depend on vocabulary, special tokens, chat template and code, and on the date if it is used.
    """
    cls, template = type(tokenizer), tokenizer.chat_template
    state: Any = [tokenizer.get_vocab(), tokenizer.init_kwargs | {"name_or_path": None}]
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        for option in ("truncation", "padding"):  # left by the last call
            state.pop(option, None)
    return digest({
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "libraries": {name: version(name) for name in LIBRARIES},
        "state": state,
        "special": [tokenizer.special_tokens_map, tokenizer.bos_token_id, tokenizer.eos_token_id],
        "split": getattr(tokenizer, "split_special_tokens", None),
        "template": template,
        "today": (today or date.today()).isoformat() if "strftime_now" in str(template) else None,
    })  # fmt: skip


def stored(root: Path) -> Sequence[Path]:
    """Return the folders of the token store under a cache root."""
    return sorted((root / "tokens").glob("[0-9a-f]*"))


def leftovers(root: Path) -> Sequence[Path]:
    """Return damaged folders of the token store, and temporary ones of ended processes."""
    temporary = filter(is_left_over, (root / "tokens").glob(".*.tmp"))
    return sorted([*temporary, *(root / "tokens").glob(".*.damaged")])
