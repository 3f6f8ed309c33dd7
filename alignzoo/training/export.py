"""Export of a run's policy or critic: adapter or full weights, tokenizer, model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, Field
from transformers import AutoConfig, PreTrainedModel

from alignzoo.core.artifacts import atomic_folder
from alignzoo.core.console import Screen
from alignzoo.core.door import BadFile, inside, read_text, read_yaml, translate, validated
from alignzoo.core.errors import UserError, nearest
from alignzoo.models.adapters import is_adapter
from alignzoo.models.from_pretrained import call_from_pretrained
from alignzoo.models.loading import pretrained
from alignzoo.models.saved_adapter import CONFIG, WEIGHTS, named_base, peft_config
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.models.value_models import token_classifier, value_model
from alignzoo.training.run_folder import RunFolder

DTYPES = ("float32", "bfloat16", "float16")
MERGED, BASE = "merged", "base"
"""Folders of a run with adapters: its merged policy, and its base model if that exists nowhere else."""

CARD = """---
{head}---

# {name}

{what} with alignzoo {version}: `{objective}`, from {start}, {steps} optimizer steps. {form}

Exported from the run with fingerprint `{fingerprint}`. The recipe that made it:

```yaml
{recipe}```
"""


def export_run(
    run: Path, to: Path | None, merge: bool, dtype: str | None, shard: str, force: bool, screen: Screen,
    critic: bool = False,
) -> Path:  # fmt: skip
    """Write a finished run's policy or critic to a folder, atomically, and return the folder.

    A critic in full weights is a token classifier of one label, whose logits are the values, or else a sequence
    classifier, where transformers has no token classifier of its architecture.

    Args:
        run: The run folder.
        to: The folder to write; by default `export`, `export-merged`, `export-critic` or `export-critic-merged` in the
            run folder.
        merge: Merge an adapter into its base model.
        dtype: Type of full weights; by default that of the weights that training started from, or the type of training
            where these were random or are not there any more.
        shard: Maximum size of a weights file, such as "5GB".
        force: Replace an exported model that exists.
        screen: Receives progress.
        critic: Write the critic.

    Raises:
        UserError: The run is not finished or has no critic, or the folder exists or holds something else.
    """
    policy = _critic_of(run) if critic else _policy_of(run)
    to = to or run / f"export{'-critic' if critic else ''}{'-merged' if merge and is_adapter(policy) else ''}"
    if to.exists() and not (to.is_dir() and (force or not any(to.iterdir()))):
        raise UserError("the path exists already", where=str(to), hint="" if to.is_file() else "--force replaces it")
    folder = RunFolder(run)
    if to.resolve() in (run.resolve(), folder.policy.resolve(), folder.critic.resolve(), *policy.resolve().parents):
        raise UserError("this folder is part of the run", where=str(to), expected="another folder")
    if to.is_dir() and any(to.iterdir()) and not any((to / name).is_file() for name in ("config.json", CONFIG)):
        raise UserError(
            "the folder holds no exported model, and --force replaces no other", where=str(to), expected="a new folder"
        )
    alone = is_adapter(policy) and not merge
    if alone and dtype:
        raise UserError("an adapter keeps the type that it was trained in", where="--dtype", expected="--merge with it")
    source = _source(run)
    trained = source.dtype
    dtype = dtype or _dtype_of_start(run) or trained
    model = None if alone else _full_weights(policy, source, dtype, critic)
    by_token = token_classifier(model) if critic and model is not None else None
    model = by_token or model
    files = [inside(policy, WEIGHTS)] if model is None else []
    needs = sum(x.nbytes for x in model.state_dict().values()) if model else sum(file.stat().st_size for file in files)
    with atomic_folder(to, needs, over=True) as temporary:
        if model is None:
            for name in (WEIGHTS, CONFIG):
                shutil.copyfile(inside(policy, name), temporary / name)
        else:
            model.save_pretrained(temporary, max_shard_size=shard)
        pretrained_tokenizer(str(policy), None, source.trust_remote_code).save_pretrained(temporary)
        reader = _reader(alone, by_token is not None) if critic else ""
        (temporary / "README.md").write_text(_card(run, policy, alone, reader), encoding="utf-8")
    screen.info(f"{'adapter' if alone else 'full weights'} of {f'the critic of {run}' if critic else run}")
    if critic:
        screen.info(f"critic: {reader}")
    if alone and (base := _own_base(policy)):
        screen.info(
            f"the adapter needs its base model, a folder of this machine: copy {base} too, or export with --merge"
        )
    if not alone and dtype != trained:
        screen.info(f"written in {dtype}; it was trained in {trained}, which --dtype {trained} keeps")
    return to


def full_weights_policy(folder: RunFolder, screen: Screen) -> Path:
    """Return a folder with the full weights of a finished run's policy.

    Another run starts from it. An adapter is merged into its base once, in the run's own type. The folder stays: later
    adapters name it as their base.
    """
    policy: Path = folder.policy
    merged = folder.path / MERGED
    if not is_adapter(policy) or merged.is_dir():
        return merged if is_adapter(policy) else policy
    screen.info(f"merging the adapter of {folder.path}, to start from it")
    source = _source(folder.path)
    with folder.held(wait=True):
        if not merged.is_dir():
            model = _full_weights(policy, source, None)
            needs = sum(tensor.nbytes for tensor in model.state_dict().values())
            with atomic_folder(merged, needs) as temporary:
                model.save_pretrained(temporary)
                pretrained_tokenizer(str(policy), None, source.trust_remote_code).save_pretrained(temporary)
    return merged


def _policy_of(run: Path) -> Path:
    if not (run / "recipe.yaml").is_file():
        siblings = [path.name for path in run.parent.iterdir()] if run.parent.is_dir() else []
        raise UserError("not a run folder", where=str(run), nearest=nearest(run.name, siblings))
    folder = RunFolder(run)
    if folder.summary() is None:
        raise UserError(
            "the run is not finished: it has no policy yet", where=str(run), hint="run its recipe again to finish it"
        )
    policy: Path = folder.policy
    return policy


def _critic_of(run: Path) -> Path:
    _policy_of(run)
    critic: Path = RunFolder(run).critic
    if not critic.is_dir():
        raise UserError(
            "this run has no critic", where=str(run), expected="a run of an objective with one, such as ppo"
        )
    return critic


def _reader(alone: bool, by_token: bool) -> str:
    """Say which class reads an exported critic, and where its values are."""
    if alone:
        return (
            "peft reads it on AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1), whose output is "
            "the value after the last token; --merge writes a token classifier"
        )
    if by_token:
        return (
            "AutoModelForTokenClassification reads it; logits[:, t, 0] is the value of the text up to token t, before "
            "token t + 1 is known"
        )
    return (
        "AutoModelForSequenceClassification reads it, whose output is the value after the last token; those of all "
        "slots are `model.score(model.base_model(ids)[0])`"
    )


class _Source(BaseModel):
    """Fields of the section `model` of a run's recipe that an export reads.

    A plugin's source has fields of its own.
    """

    from_: str | None = Field(None, alias="from")
    path: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantize: Literal["4bit", "8bit"] | None = None
    trust_remote_code: bool = False


def _source(run: Path) -> _Source:
    path = run / "recipe.yaml"
    node = read_yaml(path)
    model = node.plain().get("model") if node is not None and isinstance(node.value, dict) else None
    if not isinstance(model, dict):
        raise BadFile("damaged: it has no section 'model'", where=str(path))
    names = {"from", *_Source.model_fields}
    return validated({key: value for key, value in model.items() if key in names}, path, _Source)


def _dtype_of_start(run: Path) -> str | None:
    """Return the type of the weights that a run, or the first run before it, started from.

    It is None if it is unknown.
    """
    source, seen = _source(run), [run.resolve()]
    while source.from_ is not None:
        run = (run / source.from_).parent
        if run.resolve() in seen or not (run / "recipe.yaml").is_file():
            return None
        seen.append(run.resolve())
        source = _source(run)
    if source.path is None:
        return None
    try:
        config = call_from_pretrained(AutoConfig, source.path, source.revision, "config", source.trust_remote_code)
    except UserError:  # it is not there any more, or was never a folder of transformers
        return None
    name = str(config.dtype).removeprefix("torch.")
    return name if name in DTYPES else None


def _own_base(policy: Path) -> str:
    """Return the folder of the adapter's base model, or "" if it has a hub id.

    Others find such a base by its id too.
    """
    base = named_base(policy)
    return base if Path(base).is_absolute() else ""


def _full_weights(policy: Path, source: _Source, dtype: str | None, critic: bool = False) -> PreTrainedModel:
    """Return the policy or a critic in full weights.

    Their type is the one of training, or `dtype`. An adapter is merged into its base.
    """
    own = source.dtype
    wanted = getattr(torch, dtype or own)
    if not is_adapter(policy):
        head, outputs = _head(str(policy), None, source)
        return pretrained(str(policy), None, 0, head, own, source.trust_remote_code, outputs=outputs).to(wanted)
    from peft import PeftModel

    if not (policy / WEIGHTS).is_file():  # peft would then read pickled weights
        raise UserError("the adapter has no weights in safetensors", where=str(policy), expected=WEIGHTS)
    adapter = peft_config(policy)
    base, revision = _base(policy, named_base(policy)), adapter.revision
    head, outputs = _head(base, revision, source)
    model = pretrained(base, revision, 0, head, own, source.trust_remote_code, source.quantize, outputs)
    if source.quantize:  # the adapter was trained on the quantized weights
        model = model.dequantize()
    if critic:  # a policy's base has another head
        tokenizer = pretrained_tokenizer(str(policy), None, source.trust_remote_code)
        model = value_model(model, tokenizer, 0, source.trust_remote_code)
    model = model.to(torch.promote_types(getattr(torch, own), wanted))  # type: ignore[arg-type]
    with translate(policy, "the adapter"):
        merged: PreTrainedModel = PeftModel.from_pretrained(model, str(policy), config=adapter).merge_and_unload()
    return merged.to(wanted)


def _base(policy: Path, named: str) -> str:
    """Return the base model that an adapter names, as a hub id or a folder.

    A run folder is searched beside the run first: runs move together.
    """
    path = Path(named)
    beside = policy.parent.parent.joinpath(*path.parts[-2:])
    if path.is_absolute() and path.name in (MERGED, BASE, "policy") and beside.is_dir():
        return str(beside)
    if not path.is_absolute() or path.is_dir():
        return named
    raise UserError(
        f"the base model of the adapter does not exist: {named}",
        where=str(policy),
        expected=f"that folder, or {beside}",
    )


def _head(path: str, revision: str | None, source: _Source) -> tuple[str, int]:
    """Return the head of a model in a folder, and the number of a reward model's outputs."""
    config = call_from_pretrained(AutoConfig, path, revision, "config", source.trust_remote_code)
    scalar = any("SequenceClass" in name for name in config.architectures or ())
    return ("scalar", int(config.num_labels)) if scalar else ("language_model", 1)


def _card(run: Path, policy: Path, alone: bool, reader: str) -> str:
    """Return the model card. `reader` says how a critic is read, "" for a policy."""
    summary = RunFolder(run).summary() or {}
    forms = {True: "This is a LoRA adapter, for peft.", False: "These are full weights."}
    if alone and (base := _own_base(policy)):
        forms[True] += f" Its base model has no hub id: it was the folder `{'/'.join(Path(base).parts[-2:])}`."
    head: dict[str, Any] = {"library_name": "peft" if alone else "transformers"}
    if is_adapter(policy):
        base = named_base(policy)
        forms[False] = "These are full weights: a LoRA adapter was merged into its base."
        if not Path(base).is_absolute():
            head["base_model"] = base
    objective = summary.get("objective", {})
    head["tags"] = ["alignzoo", *([str(objective["name"])] if "name" in objective else [])]
    start = summary.get("model", {}).get("start", "a start that it does not name")
    form = forms[alone] + (f" The critic gives a value for each token: {reader}." if reader else "")
    return CARD.format(
        head=yaml.safe_dump(head, sort_keys=False), name=summary["name"],
        what="The critic of a policy trained" if reader else "Trained",
        version=summary["versions"].get("alignzoo", "of an unknown version"), objective=json.dumps(objective),
        start=start, steps=summary["train"]["steps"], form=form, fingerprint=summary["fingerprint"],
        recipe=read_text(run / "recipe.yaml"),
    )  # fmt: skip
