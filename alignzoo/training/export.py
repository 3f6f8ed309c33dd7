"""Export of a run's policy or critic: adapter or full weights, tokenizer, model card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

from alignzoo.core.artifacts import atomic_folder
from alignzoo.core.console import Screen
from alignzoo.core.door import inside, translate
from alignzoo.core.errors import UserError, nearest
from alignzoo.models.adapters import is_adapter
from alignzoo.models.from_pretrained import call_from_pretrained
from alignzoo.models.loading import pretrained
from alignzoo.models.saved_adapter import CONFIG, WEIGHTS, named_base, own_base, peft_config
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.models.value_models import token_classifier, value_model
from alignzoo.training.model_card import CardOptions, model_card
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.run_source import RunSource, file_of_source, source_of, starts_of

DTYPES = ("float32", "bfloat16", "float16")
MERGED, BASE = "merged", "base"
"""Folders of a run with adapters: its merged policy, and its base model if that exists nowhere else."""


def export_run(
    run: Path, to: Path | None, merge: bool, dtype: str | None, shard: str, force: bool, screen: Screen,
    critic: bool = False, card: CardOptions | None = None,
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
        card: What the model card has besides what the run knows.

    Raises:
        UserError: The run is not finished or has no critic, or the folder exists or holds something else.
    """
    policy = _critic_of(run) if critic else policy_of(run)
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
    source = source_of(run)
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
        text = model_card(run, policy, alone, replace(card or CardOptions(), reader=reader))
        (temporary / "README.md").write_text(text, encoding="utf-8")
    screen.info(f"{'adapter' if alone else 'full weights'} of {f'the critic of {run}' if critic else run}")
    if critic:
        screen.info(f"critic: {reader}")
    if alone and (base := own_base(policy)):
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
    source = source_of(folder.path)
    with folder.held(screen.info):
        if not merged.is_dir():
            model = _full_weights(policy, source, None)
            needs = sum(tensor.nbytes for tensor in model.state_dict().values())
            with atomic_folder(merged, needs) as temporary:
                model.save_pretrained(temporary)
                pretrained_tokenizer(str(policy), None, source.trust_remote_code).save_pretrained(temporary)
    return merged


def policy_of(run: Path) -> Path:
    """Return the folder of a finished run's policy.

    Raises:
        UserError: The run is not finished, or this is no run.
    """
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
    policy_of(run)
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


def _dtype_of_start(run: Path) -> str | None:
    """Return the type of the weights that a run, or the first run before it, started from.

    It is None if it is unknown.
    """
    source = starts_of(run)[-1][1]
    file = file_of_source(source, "config.json")
    if file is None:
        return None
    try:
        config = call_from_pretrained(AutoConfig, str(file.parent), None, "config", source.trust_remote_code)
    except UserError:  # it was never a folder of transformers
        return None
    name = str(config.dtype).removeprefix("torch.")
    return name if name in DTYPES else None


def _full_weights(policy: Path, source: RunSource, dtype: str | None, critic: bool = False) -> PreTrainedModel:
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


def _head(path: str, revision: str | None, source: RunSource) -> tuple[str, int]:
    """Return the head of a model in a folder, and the number of a reward model's outputs."""
    config = call_from_pretrained(AutoConfig, path, revision, "config", source.trust_remote_code)
    scalar = any("SequenceClass" in name for name in config.architectures or ())
    return ("scalar", int(config.num_labels)) if scalar else ("language_model", 1)
