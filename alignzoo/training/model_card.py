"""The model card of an exported policy, by huggingface_hub's ModelCard."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from alignzoo.core.door import read_json, read_yaml
from alignzoo.core.redaction import printable, redact
from alignzoo.models.adapters import is_adapter
from alignzoo.models.saved_adapter import named_base, own_base, peft_config
from alignzoo.training.card_figures import Figure, card_figures
from alignzoo.training.licenses import license_beside
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.run_source import starts_of

TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ objective }} on {{ data }}, trained with alignzoo {{ version }} from {{ start }}. {{ form }}

## Use

```python
{{ code }}
```

## Training

| | |
|---|---|
{% for name, value in training %}| {{ name }} | {{ value }} |
{% endfor %}
{% if figures %}## Evaluation

{% if intervals %}Intervals are 95%: of shares Wilson's, of other means the normal's.
They are for one run, and take the held-out rows as independent: with several rows of one prompt they are too narrow.

{% endif %}| figure | rows | before training | after training | interval |
|---|---|---|---|---|
{% for one in figures %}| {{ one.cells|join(" | ") }} |
{% endfor %}
{% endif %}## Recipe

{{ fence }}yaml
{{ recipe }}{{ fence }}
"""
FORMS = {
    "adapter": "This is a LoRA adapter, for peft.",
    "merged": "These are full weights: a LoRA adapter was merged into its base.",
    "full": "These are full weights.",
}
CODE = {
    "text-generation": "AutoModelForCausalLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}
"""Pipeline tag -> the class of transformers that loads the full weights, and of peft that loads the adapter."""


@dataclass(frozen=True, slots=True)
class CardOptions:
    """What a model card has that no run knows."""

    repo: str = ""
    """Id of the repository that the model goes to, if it is known."""
    license: str = ""
    """Identifier of the license; by default that of the base model, where its card is on this machine."""
    reader: str = ""
    """For a critic, how it is read."""


def model_card(run: Path, policy: Path, alone: bool, options: CardOptions) -> str:
    """Return the model card of a run's policy, without secrets and local paths.

    Args:
        run: The run folder, of a finished run.
        policy: The folder of its policy.
        alone: True for an adapter, False for full weights.
        options: What the run does not know.
    """
    summary, recipe = RunFolder(run).summary() or {}, _recipe(run)
    reader = options.reader
    figures = [] if reader else card_figures(summary)  # they are the policy's
    tag = "token-classification" if reader.startswith(CODE["token-classification"]) else _pipeline_tag(policy)
    base = _base_model(run)
    adapted = is_adapter(policy)
    name = options.repo.rpartition("/")[2] or summary["name"]
    data = ModelCardData(
        base_model=base, datasets=_hub_datasets(recipe.get("data")) or None,
        library_name="peft" if alone else "transformers", pipeline_tag=tag, tags=_tags(summary, alone),
        model_name=name, eval_results=_eval_results(figures, summary, recipe, tag) or None,
        **({"license": options.license} if options.license else license_beside(starts_of(run)[-1][1])),
    )  # fmt: skip
    form = FORMS["adapter" if alone else "merged" if adapted else "full"]
    if alone and (own := own_base(policy)):
        form += f" Its base model has no hub id: it was the folder `{'/'.join(Path(own).parts[-2:])}`."
    if reader:
        form += f" It is the critic, which gives a value for each token: {reader}."
    code = f"# {reader}"
    if not (reader and alone):
        code = _code(options.repo or "FOLDER", tag, (base or named_base(policy)) if alone else "")
    text = yaml.safe_dump(_portable(recipe), sort_keys=False, allow_unicode=True, width=120)
    card = ModelCard.from_template(
        data, template_str=TEMPLATE, title=name, objective=" + ".join(_objectives(summary)) or "A model",
        data=_data_words(recipe.get("data")), version=summary["versions"].get("alignzoo", "of an unknown version"),
        start=_start_words(run), form=form,
        code=code,
        training=_training(summary, recipe), figures=figures, intervals=any(one.interval for one in figures),
        recipe=text, fence="`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0)),
    )  # fmt: skip
    return printable(redact(str(card).rstrip("\n") + "\n", words=False))


def _recipe(run: Path) -> dict[str, Any]:
    node = read_yaml(run / "recipe.yaml")
    found = node.plain() if node is not None else None
    return found if isinstance(found, dict) else {}


def _portable(value: Any) -> Any:
    """Return a recipe's values, with the last part of each path of this machine in its place."""
    if isinstance(value, dict):
        return {key: _portable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_portable(one) for one in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(text: str) -> str:
    return Path(text).name or text if _is_local(text) else text


def _is_local(text: str) -> bool:
    return "\n" not in text and (text.startswith(("/", "~/", "file:")) or bool(re.match(r"[A-Za-z]:[\\/]", text)))


def _base_model(run: Path) -> str | None:
    """Return the hub id of the model that a run, or the first run before it, started from."""
    path = starts_of(run)[-1][1].path
    return path if path and not _is_local(path) else None


def _start_words(run: Path) -> str:
    starts = starts_of(run)
    words = [f"the run `{path.name}`" for path, _ in starts[1:]]
    if (source := starts[-1][1]).path:
        words.append(f"`{_last_part(source.path)}`{f' at {source.revision}' if source.revision else ''}")
    elif source.from_:
        words.append(f"the run `{Path(source.from_).parent.name}`")
    else:
        words.append("random weights")
    return ", which started from ".join(words)


def _parts(data: Any) -> list[dict[str, Any]]:
    """Return the sources of a recipe's data: those of a mixture, or the one."""
    if not isinstance(data, dict):
        return []
    return [part for one in data["of"] for part in _parts(one)] if isinstance(data.get("of"), list) else [data]


def _hub_datasets(data: Any) -> list[str]:
    parts = [str(part["path"]) for part in _parts(data) if part.get("name") == "hub" and part.get("path")]
    return list(dict.fromkeys(parts))


def _data_words(data: Any) -> str:
    words = []
    for part in _parts(data):
        paths = part.get("path")
        names = [_last_part(str(path)) for path in (paths if isinstance(paths, list) else [paths]) if path]
        words.append(f"{part.get('name', 'data')} ({', '.join(f'`{name}`' for name in names)})" if names
                     else str(part.get("name", "data")))  # fmt: skip
    return " and ".join(words) or "data that its recipe does not name"


def _tags(summary: dict[str, Any], alone: bool) -> list[str]:
    return ["alignzoo", *dict.fromkeys(_objectives(summary)), *(["lora"] if alone else [])]


def _objectives(summary: dict[str, Any]) -> list[str]:
    objective = summary.get("objective", {})
    return [str(term["name"]) for term in objective.get("terms", [objective]) if "name" in term]


def _pipeline_tag(policy: Path) -> str:
    if is_adapter(policy):
        scalar = bool(peft_config(policy).modules_to_save)
    else:
        config = read_json(policy / "config.json", dict[str, Any])
        scalar = any("SequenceClass" in str(name) for name in config.get("architectures") or ())
    return "text-classification" if scalar else "text-generation"


def _code(place: str, tag: str, base: str) -> str:
    loader = CODE[tag]
    if not base:
        lines = [f"from transformers import {loader}, AutoTokenizer", "",
                 f'model = {loader}.from_pretrained("{place}", dtype="auto")']  # fmt: skip
    else:
        lines = [f"from peft import AutoPeft{loader.removeprefix('Auto')}", "from transformers import AutoTokenizer",
                 "", f'model = AutoPeft{loader.removeprefix("Auto")}.from_pretrained("{place}")']  # fmt: skip
    return "\n".join([*lines, f'tokenizer = AutoTokenizer.from_pretrained("{place}")'])


def _training(summary: dict[str, Any], recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what was trained; values that the files lack are left out."""
    train, own = summary["train"], recipe.get("train") or {}
    optimizer = own.get("optimizer") or {}
    data = summary.get("data", {})
    rows = [
        ("objective", f"`{json.dumps(summary['objective'])}`" if summary.get("objective") else None),
        ("training rows", f"{data['train']:,}" if isinstance(data.get("train"), int) else None),
        ("optimizer steps", f"{train['steps']:,}"),
        ("batch size", own.get("batch_size")),
        ("optimizer", optimizer.get("name")),
        ("learning rate", optimizer.get("learning_rate")),
        ("schedule", (own.get("schedule") or {}).get("name")),
        ("precision", own.get("precision")),
        ("seed", recipe.get("seed")),
        ("processes", summary.get("processes")),
        ("fingerprint of the run", f"`{summary['fingerprint']}`"),
        ("versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items())),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _eval_results(figures: list[Figure], summary: dict[str, Any], recipe: dict[str, Any], tag: str) -> list[EvalResult]:
    """Return the figures for the hub's table of results."""
    data = recipe.get("data")
    hub = _hub_datasets(data)
    found = []
    for one in figures:
        dataset = one.dataset or (hub[0] if hub else "held-out rows of " + _data_words(data).replace("`", ""))
        args = {"rows": one.count, "low_95": one.interval[0], "high_95": one.interval[1]} if one.interval else None
        found.append(EvalResult(
            task_type=tag, dataset_type=hub[0] if hub and not one.dataset else "preference", dataset_name=dataset,
            dataset_split="held_out", metric_type=one.kind, metric_name=one.name, metric_value=one.after,
            metric_args=args,
        ))  # fmt: skip
    return found
