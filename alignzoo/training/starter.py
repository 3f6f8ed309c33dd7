"""A first recipe for a data file and a model, with a comment on every key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from pydantic import BaseModel
from transformers import AutoConfig, PreTrainedTokenizerBase

from alignzoo.core.errors import UserError, first_line, nearest
from alignzoo.data.convert import convert_rows
from alignzoo.data.recognize import KINDS, Recognized, recognize
from alignzoo.data.sources.files import Files
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Row
from alignzoo.models.from_pretrained import call_from_pretrained
from alignzoo.models.sources.transformers import Transformers
from alignzoo.models.tokenizers import load_tokenizer
from alignzoo.recipe.optimizers import AdamW
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import EvalConfig, Recipe, RepliesConfig, Schedule, TokensConfig, TrainConfig
from alignzoo.registry.lookup import get_objective

EDITOR = "# yaml-language-server: $schema=recipe.schema.json"
"""First line, by which an editor finds the JSON Schema of recipes."""
OBJECTIVES = {"pairs": "dpo", "labels": "kto", "lists": "dpo", "texts": "sft", "prompts": "dpo"}
"""What the rows are -> the objective that is proposed."""
RATES = {"chosen": 1e-5}
RATE = 1e-6
"""Learning rates for whole weights: of SFT, and of all other objectives."""
MEASURED, MULTIPLE, LONGEST = 200, 64, 4_096
"""Rows whose tokens are counted; lengths are multiples of this, and at most so much without a reason to cut."""
DRAWN = 256
"""Tokens of a draw."""
ANSWERS = ("answer", "solution", "ground_truth", "target", "gold")
"""Usual names of a column with the right answer."""
UNBOUNDED = TokensConfig(max_length=1_000_000, max_prompt_length=999_999)


@dataclass
class Starter:
    """The text of a recipe, and what was found."""

    text: str
    notes: list[str] = field(default_factory=list)


def starter(data: str, model: str, folder: Path, objective: str | None = None) -> Starter:
    """Return a recipe for the rows of a file and a model.

    Args:
        data: A file or folder of rows.
        model: A folder or hub id, as for from_pretrained.
        folder: Where the recipe will be: its paths are relative to that.
        objective: The objective; by default one that fits the rows.

    Raises:
        UserError: The rows can't be read, the objective does not fit them, or there is no such folder.
    """
    found = recognize(data)
    chosen: Objective = get_objective(objective or OBJECTIVES[found.kind])
    drawn = chosen.data == "group" or found.kind == "prompts"
    if not drawn:
        convert_rows(found.rows, chosen, "extremes")
    start = _Start(model, found)
    notes = [_about(found, chosen, objective is None), *start.notes]
    lengths, words = start.lengths(found.rows, drawn)
    new = lengths["max_length"] - lengths["max_prompt_length"]
    sections = [
        _objective(chosen),
        _section("model", Recipe, Transformers, {"path": _relative(model, folder), **start.fields}, _LATER),
        _section("data", Recipe, Files, _data(found, data, folder)),
        _section("tokens", Recipe, TokensConfig, lengths, note=words),
        _section("train", Recipe, TrainConfig, _train(found, chosen)),
        *([_section("rollout", Recipe, RolloutConfig, _rollout(found, new))] if drawn else ()),
        _section("eval", Recipe, EvalConfig, {"every": None, "replies": {"num_prompts": 6, "max_new_tokens": 64}}),
        _line("reporters", ["html"], _about_key(Recipe, "reporters"), 0),
        _line("seed", 0, _about_key(Recipe, "seed"), 0),
    ]
    head = [EDITOR, f"# {chosen.name} on {KINDS[found.kind]}. `alignzoo list KEY` says more about any key."]
    return Starter("\n".join([*head, "", *sections]) + "\n", notes)


_LATER = (
    "  # lora: {r: 16, alpha: 32}  # train low-rank adapters in place of the weights, at a rate of about 1.0e-4",
    "  # quantize: 4bit  # keep the frozen weights in 4 bits under the adapters: QLoRA",
)


def _about(found: Recognized, objective: Objective, proposed: bool) -> str:
    count = f"{found.count:,}" if found.whole else f"more than {found.count:,}"
    named = ", ".join(f"{part}: {column}" for part, column in found.format.items())
    form = f", read with {{{named}}}" if named else ""
    return f"{count} rows: {KINDS[found.kind]}{form}; objective {objective.name}{' (proposed)' if proposed else ''}"


class _Start:
    """The model: what a recipe says of it, and the tokens that its tokenizer makes."""

    def __init__(self, model: str, found: Recognized) -> None:
        self.notes: list[str] = []
        self.fields: dict[str, Any] = {"dtype": "float32"}
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.positions: int | None = None
        _check_name(model)
        local = str(Path(model).expanduser().absolute()) if Path(model).expanduser().is_dir() else model
        try:
            config = call_from_pretrained(AutoConfig, local, None, "config", False)
            self.positions = getattr(config.get_text_config(), "max_position_embeddings", None)
            if str(getattr(config, "dtype", "")).endswith("bfloat16"):
                self.fields["dtype"] = "bfloat16"
            self.tokenizer = load_tokenizer(Transformers(path=local), ())
            if found.is_chat and not self.tokenizer.chat_template:
                self.fields["chat_template"] = "chatml"
                self.notes.append("the tokenizer has no chat template: chatml is proposed")
                self.tokenizer = load_tokenizer(Transformers(path=local, chat_template="chatml"), ())
        except UserError as error:
            if local != model or Path(model).is_absolute():
                raise
            self.notes.append(f"lengths are not measured, as the tokenizer can't be loaded: {first_line(error)}")

    def lengths(self, rows: Sequence[Row], drawn: bool) -> tuple[dict[str, Any], str]:
        """Return the limits of length, and a comment on where they are from."""
        default = {"max_length": 1024, "max_prompt_length": 512, "truncate_prompt": "keep_end"}
        if self.tokenizer is None:
            return default, "not measured: the tokenizer could not be loaded"
        some = [row.alone() for row in rows[:MEASURED]] if drawn else rows[:MEASURED]
        trees = list(tokenize(some, self.tokenizer, UNBOUNDED).trees)
        if not trees:
            return default, "not measured: no row could be tokenized"
        most = min(LONGEST, self.positions or LONGEST)
        room = min(DRAWN, most // 2) if drawn else 0
        prompts = [len(tree.prompt) for tree in trees]
        answers = [room or max((len(one.tokens) for one in tree.branches), default=0) for tree in trees]
        whole = np.array(prompts) + np.array(answers)
        length = min(most, max(2, _rounded(float(np.quantile(whole, 0.99)))))
        least = room or min(MULTIPLE, length // 2)  # tokens that are left for a completion
        prompt = length - room if drawn else min(_rounded(float(np.quantile(prompts, 0.99))), length - least)
        of = "a prompt and a draw have" if drawn else "has"
        words = (
            f"of the first {len(trees)} rows the longest {of} {int(whole.max()):,} tokens, "
            f"99% at most {int(np.quantile(whole, 0.99)):,}"
        )
        return {"max_length": length, "max_prompt_length": max(1, prompt), "truncate_prompt": "keep_end"}, words


def _rounded(number: float) -> int:
    return -(-int(np.ceil(number)) // MULTIPLE) * MULTIPLE


def _check_name(model: str) -> None:
    """Raise UserError for a path without a folder, and for what can't be a hub id."""
    path = Path(model).expanduser()
    if model and path.is_dir():
        return
    if not (path.is_absolute() or model.startswith((".", "~")) or (path.parent.name and path.parent.is_dir())):
        try:
            validate_repo_id(model)
        except HFValidationError as error:
            raise UserError(f"no folder, and no hub id: {first_line(error)}", where=f"--model {model}",
                            expected="a folder with a model, or a hub id") from None  # fmt: skip
        return
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError("no such folder", where=f"--model {model}", nearest=nearest(path.name, siblings),
                    expected="a folder with a model, or a hub id")  # fmt: skip


def _relative(text: str, folder: Path) -> str:
    """Return a path as a recipe in `folder` writes it; a hub id as it is."""
    path = Path(text).expanduser()
    if not path.exists():
        return text
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return (
        str(path.absolute())
        if relative.startswith(f"..{os.sep}..")
        else f"./{relative}"
        if relative[0] != "."
        else relative
    )


def _objective(objective: Objective) -> str:
    values = objective.to_recipe()
    return _section("objective", Recipe, type(objective), values)


def _data(found: Recognized, data: str, folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {"name": "files", "path": _relative(data, folder)}
    if found.format:
        values["format"] = {"name": "records", **found.format}
    if not found.tested:
        groups = len({row.group for row in found.rows})
        values["held_out_fraction"] = 0.1 if groups > 1 else 0
    values |= {"held_out_rows": None, "max_train_rows": None, "deduplicate": False}
    return values | ({"pairs": "extremes"} if found.kind == "lists" else {})


def _train(found: Recognized, objective: Objective) -> dict[str, Any]:
    rows = found.count if found.tested else int(found.count * 0.9)
    batch = min(32, max(1, rows // 4))
    warmup = min(100, rows // batch // 10)
    rate = RATES.get(objective.data, RATE)
    return {
        "batch_size": batch, "epochs": 1.0, "max_steps": None,
        "optimizer": AdamW(learning_rate=rate).model_dump(), "schedule": {"name": "linear", "warmup_steps": warmup},
        "max_grad_norm": 10.0, "precision": "float32", "micro_batch_tokens": 4096, "gradient_checkpointing": False,
        "device": "auto", "checkpoint_every": 200, "keep_checkpoints": 2,
    }  # fmt: skip


def _rollout(found: Recognized, tokens: int) -> dict[str, Any]:
    """Return how completions are drawn, and rewarded by the rows' answers or by length."""
    columns = found.rows[0].all_columns
    answer = next((name for name in ANSWERS if name in columns), None)
    reward: dict[str, Any] = {"name": "exact_match", "column": answer} if answer else {"name": "length", "weight": -1.0}
    return {"completions": 8, "temperature": 1.0, "max_new_tokens": tokens, "rewards": [reward]}


NESTED: dict[str, type[BaseModel]] = {"optimizer": AdamW, "schedule": Schedule, "replies": RepliesConfig}
"""Key of a section -> the class of the section below it."""
OWN = {
    "name": "which one; `alignzoo list` prints all",
    "rewards": "what scores a draw: replace it by a judge of yours (`alignzoo list judges`)",
}
"""Descriptions of keys that are no field, or that need a hint."""


def _about_key(cls: type[BaseModel], key: str) -> str:
    info = next((info for name, info in cls.model_fields.items() if (info.alias or name) == key), None)
    return OWN.get(key) or (info.description if info else "") or ""


def _section(
    name: str, of: type[BaseModel], cls: type[BaseModel], values: Mapping[str, Any], after: Sequence[str] = (),
    note: str = "", indent: int = 0,
) -> str:  # fmt: skip
    """Return a section with a line for each key and its description."""
    about = "; ".join(filter(None, [_about_key(of, name), note]))
    lines = [f"{' ' * indent}{name}:  # {about}"]
    for key, value in values.items():
        if key in NESTED:
            lines.append(_section(key, cls, NESTED[key], value, indent=indent + 2))
        else:
            lines.append(_line(key, value, _about_key(cls, key), indent + 2))
    return "\n".join([*lines, *after])


def _line(key: str, value: Any, about: str, indent: int) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000, sort_keys=False)
    return f"{' ' * indent}{key}: {written.removesuffix('...' + chr(10)).strip()}  # {about}"
