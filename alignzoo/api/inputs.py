"""Write rows, models and tokenizers that are in memory to files named by their content.

A run then reads files, as it always does: the same content gives the same run, and other processes can continue it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.core.artifacts import atomic_folder
from alignzoo.core.digests import digest
from alignzoo.core.errors import UserError, first_line, kind_of
from alignzoo.core.paths import runs_root
from alignzoo.data.sources.hub import without_nulls
from alignzoo.interfaces.data_source import LONGEST_NAME, PART_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.recipe.resolved import Resolved

Rows = Iterable[Mapping[str, Any]]
EXPECTED = "a list of dictionaries, a datasets.Dataset, or a mapping of train and test to these"
KEPT_OUT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""Fields of a model's config that its weights or the library decide, or that are no part of it."""
UNSAVED = "(in memory)"
"""The path of a model that has no files."""
DTYPES = ("float32", "bfloat16")


def inputs_root() -> Path:
    """Return the folder of what was in memory, beside the runs that read it."""
    return runs_root() / "inputs"


def rows_path(data: Any, label: str = "data") -> Path:
    """Return a file with these rows, or a folder with one file for each split.

    Args:
        data: A list of dictionaries, a `datasets.Dataset`, a DataFrame, or a mapping of split names to these.
        label: What the rows are, for errors.

    Raises:
        UserError: It is none of these, has no rows, or a row can't be written as JSON.
    """
    splits = dict(data) if isinstance(data, Mapping) else {"": data}
    if not splits:
        raise UserError("no rows", where=label, expected=EXPECTED)
    for name in splits:
        if not (isinstance(name, str) and re.fullmatch(f"({PART_NAME})?", name) and len(name) <= LONGEST_NAME):
            raise UserError(f"{name!r:.60} is no name of a split", where=label, expected="such as 'train' and 'test'")
    places = {name: f"{label}[{name!r}]" if name else label for name in splits}
    found = {name: _records(rows, places[name]) for name, rows in splits.items()}
    content = blake2b(digest_size=16)
    for name, records in found.items():
        content.update(f"{name}\n".encode())
        for line in _lines(records, places[name]):
            content.update(line.encode())
    folder = inputs_root() / f"{label}-{content.hexdigest()}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            for name, records in found.items():
                with open(temporary / f"{name or label}.jsonl", "w", encoding="utf-8") as file:
                    file.writelines(_lines(records, places[name]))
    return (folder / f"{label}.jsonl" if "" in found else folder).absolute()


def _records(rows: Any, label: str) -> Rows:
    """Return records that can be read twice, without the empty columns of tables."""
    library = type(rows).__module__.partition(".")[0]
    if library == "datasets":
        return _Mapped(rows, lambda row: without_nulls({key: one for key, one in row.items() if one is not None}))
    if library == "pandas" and hasattr(rows, "to_dict"):
        return [
            {key: value for key, value in record.items() if not _is_missing(value)}
            for record in rows.to_dict("records")
        ]  # fmt: skip
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise UserError(f"rows are a {type(rows).__name__}", where=label, expected=EXPECTED)
    return rows


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


class _Mapped:
    """A dataset whose rows pass through a function."""

    def __init__(self, rows: Iterable[Any], function: Callable[[Any], Any]) -> None:
        self._rows, self._function = rows, function

    def __iter__(self) -> Iterator[Any]:
        return map(self._function, self._rows)


def _lines(records: Rows, label: str) -> Iterator[str]:
    """Yield rows as lines of JSON."""
    count = 0
    for count, row in enumerate(records, 1):
        where = f"{label}[{count - 1}]"
        if not isinstance(row, Mapping):
            raise UserError(f"a row is {kind_of(row)}", where=where, expected="a dictionary of columns")
        try:
            yield json.dumps(dict(row), allow_nan=False, default=_plain) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"the row can't be written as JSON: {first_line(error)}", where=where) from None
    if not count:
        raise UserError("no rows", where=label, expected=EXPECTED)


def _plain(value: Any) -> Any:
    """Return a number or an array of numpy as plain values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no text, number, list or dictionary")


def model_folder(model: PreTrainedModel, save: bool = True) -> tuple[Path, str]:
    """Return a folder with a model's weights and config, and their data type.

    Without `save` there is no folder, and the model is only checked.

    Raises:
        UserError: It is not a whole Hugging Face model that `from_pretrained` loads again.
    """
    from alignzoo.models.fingerprint import remote_code_digests, weights_fingerprint

    dtype = _check_model(model)
    if not save:
        return Path(UNSAVED), dtype
    config = {key: value for key, value in model.config.to_dict().items() if key not in KEPT_OUT}
    generation = getattr(model, "generation_config", None)
    content = [
        type(model).__qualname__, config, generation.to_dict() if generation else None, dtype,
        remote_code_digests(model), weights_fingerprint(model),
    ]  # fmt: skip
    folder = inputs_root() / f"model-{digest(content)}"
    if not folder.is_dir():
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        with atomic_folder(folder, size) as temporary:
            model.save_pretrained(temporary)
    return folder.absolute(), dtype


def _check_model(model: Any) -> str:
    """Return the data type of a model that can be saved and loaded again."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

    from alignzoo.models.adapters import has_adapters

    where = "model"
    if type(model).__module__.startswith("peft.") or has_adapters(model):
        raise UserError(
            "the model has adapters", where=where, expected="a model without them, and model.lora in the recipe",
            hint="model.merge_and_unload() makes whole weights of trained ones",
        )  # fmt: skip
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"a {type(model).__name__} is no Hugging Face model", where=where,
            expected="a PreTrainedModel, a folder or a hub id",
        )  # fmt: skip
    if any(one.is_meta for one in model.parameters()):
        raise UserError("the model has no weights: they are on the device meta", where=where, expected="loaded weights")
    if getattr(model, "hf_quantizer", None) is not None:
        raise UserError("the model is quantized", where=where, expected="its folder or hub id, and model.quantize")
    cls, config = type(model), type(model.config)
    known = [
        auto._model_mapping.get(config, None) for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification)
    ]
    names = {one.__name__ for each in known for one in (each if isinstance(each, tuple) else (each,)) if one}
    if cls.__name__ not in names and not cls.__module__.startswith("transformers_modules"):
        raise UserError(
            f"{cls.__name__} is not a model that AutoModelForCausalLM or AutoModelForSequenceClassification loads",
            where=where, expected="one of theirs, or a class that AutoModelForCausalLM.register knows",
        )  # fmt: skip
    dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in model.parameters() if one.is_floating_point()})
    if len(dtypes) != 1 or dtypes[0] not in DTYPES:
        raise UserError(
            f"the weights are {' and '.join(dtypes)}", where=where, expected=" or ".join(DTYPES),
            hint="model.to(torch.bfloat16) converts them",
        )  # fmt: skip
    return dtypes[0]


def tokenizer_folder(tokenizer: PreTrainedTokenizerBase) -> Path:
    """Return a folder with a tokenizer and its chat template."""
    from transformers import PreTrainedTokenizerBase

    from alignzoo.data.token_store import tokenizer_fingerprint

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"a {type(tokenizer).__name__} is no Hugging Face tokenizer", where="tokenizer",
            expected="what AutoTokenizer.from_pretrained returns",
        )  # fmt: skip
    folder = inputs_root() / f"tokenizer-{tokenizer_fingerprint(tokenizer, date.min)}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return folder.absolute()


def recipe_file(resolved: Resolved) -> Path:
    """Return a file with a recipe that has none, under the recipe's name."""
    text = resolved.to_yaml()
    folder = inputs_root() / f"recipe-{digest(text)}"
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            (temporary / f"{resolved.recipe.name}.yaml").write_text(text, encoding="utf-8")
    return (folder / f"{resolved.recipe.name}.yaml").absolute()
