"""Call `from_pretrained` on a folder or hub id that a stranger may have made.

The folder is checked first. Code that comes with it runs only if the recipe says so. Every error becomes a UserError.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignzoo.core.console import warn_once
from alignzoo.core.door import BadFile, translate
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.core.hub import hub_problem
from alignzoo.data.boundary import BoundaryTokenizer
from alignzoo.models.folder_checks import (
    WEIGHTS,
    check_config,
    check_model,
    check_tokenizer,
    check_weights,
    indexed_files,
)
from alignzoo.registry.loading import no_plugins

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
"""Files of a hub repository that are fetched and checked before a library loads anything."""
MOST_SECONDS_OF_USE = 2.0
"""Processor time for the few words of a tokenizer's trial, which the parent will spend again."""
LONGEST_MESSAGE = 300
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
REPORTED = {
    "automatic conversion": "parts of a weight that the model has as one, such as the experts of a layer, are "
    "missing or differ in shape",
    "ignore_mismatched_sizes": "a weight has another shape than the model's",
}
"""Words of an error that refers to transformers' report on the weights -> what is wrong with them."""


def call_from_pretrained(
    auto: Any, source: str, revision: str | None, kind: str, trust: bool, where: str = "model", **options: Any
) -> Any:
    """Call `from_pretrained` of a transformers class.

    Args:
        auto: The class: `AutoConfig`, `AutoTokenizer`, or one of the `AutoModelFor...`.
        source: Local folder or hub id.
        revision: Hub revision.
        kind: Name of the object in errors: "config", "tokenizer" or "model".
        trust: Run Python code that comes with it; `--no-plugins` prevails.
        where: The recipe's key, for errors.
        **options: Passed on.

    Raises:
        UserError: It can't be loaded.
    """
    trust = trust and not no_plugins()
    if trust:
        warn_once(f"model.trust_remote_code is true: Python code that comes with '{source}' will be run")
    common = {"revision": revision, "trust_remote_code": trust}
    local = Path(source).is_dir()
    folder = Path(source) if local else _fetch(source, revision)
    if folder is not None and not local:
        common["revision"] = folder.name  # the commit that is checked is the one that is loaded
    if folder is not None and kind == "model":
        if not local:
            with _as_user_errors(kind, source, where):
                _fetch_weights(source, folder)
        labels = {key: value for key, value in options.items() if key == "num_labels"}
        read = source if trust else str(folder)  # code is not among the files that were fetched
        check_model(folder, lambda: _described(auto, read, kind, where, common | labels))
    elif folder is not None and kind == "config":
        check_config(folder, lambda: _try_config(auto, source, kind, where, common))
    elif folder is not None:
        check_tokenizer(folder, lambda: _try_tokenizer(auto, source, kind, where, common))
    with _as_user_errors(kind, source, where), _no_report():
        return auto.from_pretrained(source, **common, **options)


@contextmanager
def _no_report() -> Iterator[None]:
    """Silence transformers' report on weights, a table that may contain a traceback.

    Who loads a model reads `output_loading_info`.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _fetch(source: str, revision: str | None) -> Path | None:
    """Download the small files of a hub id, and return their folder in the hub's cache.

    Returns None if the download fails.
    """
    from huggingface_hub import snapshot_download

    hub_problem()
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=SMALL_FILES, ignore_patterns="*/*"))
    except Exception:  # no such id, or no network: from_pretrained has a sentence for each
        return None


def check_start(source: str, revision: str | None, where: str) -> None:
    """Check that a folder or hub id has the weights of a whole model, without them.

    Every file that the index names must be there. Headers of local files are read.

    Raises:
        UserError: The folder or the hub has no such model, no weights in safetensors, or lacks a file of them.
    """
    local = Path(source).is_dir()
    with _as_user_errors("model", source, where):
        folder = Path(source) if local else _fetch(source, revision)
        if folder is not None and (local or hub_problem()):
            found, missing = bool(check_weights(folder)[0]), []
            if not found and not local and not any(folder.glob("*.bin")):
                raise _not_cached("weights", source, where, hub_problem())
        else:
            names = _names_at_hub(source, revision)  # raises where there is no such model
            wanted = [WEIGHTS] if WEIGHTS in names or folder is None else indexed_files(folder)
            found, missing = bool(wanted), sorted(set(wanted) - names)
        if not found or missing == [WEIGHTS]:
            raise OSError("no weights in safetensors")
        if missing:
            raise UserError(
                f"the index of '{source}' names {missing[0]}, which the hub lacks", where=where,
                expected="a model with all of its weights",
            )  # fmt: skip


def _names_at_hub(source: str, revision: str | None) -> set[str]:
    from huggingface_hub import HfApi

    found = HfApi().model_info(source, revision=revision, timeout=10.0)
    return {file.rfilename for file in found.siblings or ()}


def _fetch_weights(source: str, folder: Path) -> None:
    """Download the weights of a hub id beside its small files.

    The weights can then be checked before they are read.
    """
    from huggingface_hub import snapshot_download

    snapshot_download(source, revision=folder.name, allow_patterns=[WEIGHTS, *indexed_files(folder)])


def _try_config(auto: Any, source: str, kind: str, where: str, options: dict[str, Any]) -> None:
    with _as_user_errors(kind, source, where):
        auto.from_pretrained(source, **options)


def _described(auto: Any, source: str, kind: str, where: str, options: dict[str, Any]) -> int:
    """Return the number of parameters of the model that a config describes."""
    import torch
    from transformers import AutoConfig

    torch.set_num_threads(1)  # the threads of the parent are not in its child
    with _as_user_errors(kind, source, where):
        config = AutoConfig.from_pretrained(source, **options)
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=options["trust_remote_code"])
        return sum(parameter.numel() for parameter in model.parameters())


def _try_tokenizer(auto: Any, source: str, kind: str, where: str, options: dict[str, Any]) -> None:
    """Load a tokenizer, encode and decode some text and render a chat, as the parent will.

    What a template says to these messages does not matter. Real texts are tokenized in children of their own.
    """
    with _as_user_errors(kind, source, where):
        tokenizer = auto.from_pretrained(source, **options)
        began = time.process_time()
        BoundaryTokenizer(tokenizer)
        for ids in tokenizer(["", "a", "Hello, world! 123 Grüße 漢字 🙂\n"])["input_ids"]:
            tokenizer.decode(ids)
    for messages in ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": ""}] * 2):
        if tokenizer.chat_template:
            try:
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except MemoryError:
                raise
            except Exception:
                continue
    if (taken := time.process_time() - began) > MOST_SECONDS_OF_USE:
        raise BadFile(
            f"the tokenizer or its chat template takes {taken:.1f} s for a few words", where=source,
            expected=f"at most {MOST_SECONDS_OF_USE:g} s",
        )  # fmt: skip


@contextmanager
def _as_user_errors(kind: str, source: str, where: str) -> Iterator[None]:
    """Turn what transformers and the libraries below it raise into a UserError."""
    with translate(source, f"the {kind}"):
        try:
            yield
        except (UserError, RunFailed, MemoryError):
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise
            raise loading_error(kind, source, where, error) from error


def loading_error(kind: str, source: str, where: str, error: Exception) -> UserError:
    """Return a UserError that explains why from_pretrained failed and how to fix it."""
    text = str(error)
    if "trust_remote_code" in text:
        hint = "read that code, then set model.trust_remote_code: true, which runs it with all your permissions"
        return UserError(
            f"'{source}' can't be loaded without running Python code that comes with it", where=where,
            hint="--no-plugins runs no such code" if no_plugins() else hint,
        )  # fmt: skip
    pickled = pickled_weights(Path(source))
    if pickled or ("safetensors" in text and not any(Path(source).glob("*.safetensors"))):
        return UserError(
            f"'{source}' has no weights in safetensors{f', only {pickled}' if pickled else ''}", where=where,
            expected="model.safetensors, because loading a pickled file can run any code",
            hint="if you trust the file, convert it once: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )  # fmt: skip
    if HUB_ID.fullmatch(source) and not Path(source).exists() and not _is_cached(source) and (problem := hub_problem()):
        return _not_cached(kind, source, where, problem)
    plain = isinstance(error, OSError | ValueError) and type(error).__module__ == "builtins"
    reported = next((reason for words, reason in REPORTED.items() if words in text), "")
    message = text.splitlines()[0] if plain and text else f"{type(error).__name__}: {' '.join(text.split())}"
    return UserError(
        f"no {kind} could be loaded from '{source}': {reported or message[:LONGEST_MESSAGE]}", where=where,
        expected="a local folder in Hugging Face layout, or a hub id with the hub reachable",
    )  # fmt: skip


def _is_cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(source, "config.json"), str)
    except ValueError:  # no id that the hub could have
        return False


def _not_cached(kind: str, source: str, where: str, problem: str) -> UserError:
    return UserError(
        f"no {kind} could be loaded from '{source}': the hub's cache lacks it, and {problem}", where=where,
        expected="a local folder in Hugging Face layout, or a hub id with the hub reachable",
        hint=f"`hf download {source}` fills the cache where the hub can be reached; HF_ENDPOINT names a mirror",
    )  # fmt: skip


def pickled_weights(folder: Path) -> str:
    """Return the name of a pickled weights file in a folder without safetensors, or ""."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return ""
    found = sorted(path.name for end in ("bin", "pt", "pth", "ckpt", "pkl") for path in folder.glob(f"*.{end}"))
    return found[0] if found else ""
