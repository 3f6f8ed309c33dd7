"""Check a model's JSON, index, weight headers and tokenizer before a library reads them.

A folder from elsewhere may name files outside of itself, describe a model that its weights don't fill, or end the
process of a library that trusts it. What a library needs to build is tried in a child first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo.core.door import BadFile, MissingFile, in_child, inside, read_json, tensors

CONFIG, GENERATION, ADAPTER = "config.json", "generation_config.json", "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
JSON_BYTES = 200_000_000
"""Limit of a JSON file. The largest tokenizers in use have 40 MB."""
LARGEST_ID = 2**24
"""Limit of a token's id. Libraries reserve memory up to the largest one."""
CONFIG_SECONDS = 8.0
SECONDS, BYTES_A_SECOND = 8.0, 1_000_000_000
"""Processor time to build a model without its weights: so much, and more for larger weights."""
TOKENIZER_BYTES_A_SECOND = 1_000_000
TOKENIZER_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
MOST_SECONDS = 60
"""Limit of the processor time that the size of the files adds."""
MOST_PARAMETERS_A_BYTE, FREE_PARAMETERS = 16, 2**24
"""Limit of a model's parameters for each byte of its weights (4-bit weights have 2), beyond those that any may have."""
HINT = "download the model again"


def check_model(folder: Path, describe: Callable[[], int]) -> None:
    """Check config, index and weights of a local model.

    Args:
        folder: The folder, of the user or of the hub's cache.
        describe: Builds the model that the config describes, without memory, and returns its number of parameters. It
            is called in a child.

    Raises:
        BadFile: A file is damaged, names a file outside of the folder or in another format than safetensors, there is
            an adapter, or the config describes a much larger model than the weights hold.
    """
    files, stored = check_weights(folder)
    seconds = SECONDS + min(stored / BYTES_A_SECOND, MOST_SECONDS)
    described = in_child(folder / CONFIG, describe, what="the model", hint=HINT, seconds=seconds)
    if files and described > FREE_PARAMETERS + MOST_PARAMETERS_A_BYTE * stored:
        raise BadFile(
            f"describes a model of {described:,} parameters, and its weights have {stored:,} bytes",
            where=str(folder / CONFIG), hint=HINT,
        )  # fmt: skip


def check_weights(folder: Path) -> tuple[list[Path], int]:
    """Check that a local model has whole weights: every file of its index, and headers.

    Returns:
        The safetensors files, and the bytes of all tensors.

    Raises:
        BadFile: As `check_model`.
    """
    if os.path.lexists(folder / ADAPTER):  # transformers would follow it to another model, and to pickled weights
        raise BadFile(
            "an adapter, and whole weights are needed", where=str(folder / ADAPTER),
            expected=f"a model without {ADAPTER}",
            hint="name the run that trained it in model.from, or merge it: alignzoo export RUN --merge",
        )  # fmt: skip
    config, _ = (_json_object(folder, name) for name in (CONFIG, GENERATION))
    if config and config.get("transformers_weights") is not None:
        raise BadFile(
            "names a file of weights of its own (transformers_weights)", where=str(folder / CONFIG),
            expected=f"weights in {WEIGHTS}, or in the files of {INDEX}",
        )  # fmt: skip
    files = weight_files(folder)
    found = [tensor for file in files for tensor in tensors(file).values()]
    stored = sum(tensor.end - tensor.start for tensor in found)
    return files, stored


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model's weights, [] if it has none.

    Raises:
        BadFile: The index is no index, or names a file that does not exist, lies outside of the folder, or has another
            format.
    """
    if (folder / WEIGHTS).exists() or (folder / WEIGHTS).is_symlink():
        return [_inside(folder, WEIGHTS)]
    return [_inside(folder, name) for name in indexed_files(folder)]


def indexed_files(folder: Path) -> list[str]:
    """Return the names of the safetensors files in a model's index; none without an index.

    Raises:
        BadFile: The index is no index, or names a file in another format.
    """
    index = _json_object(folder, INDEX)
    if index is None:
        return []
    where = str(folder / INDEX)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise BadFile("no index of weights", where=where, expected="weight_map: {tensor: file, ...}", hint=HINT)
    files = sorted(set(names.values()))
    other = next((name for name in files if not name.endswith(".safetensors")), None)
    if other is not None:
        raise BadFile(
            f"names '{other:.200}', and loading a pickled file can run any code", where=where,
            expected="files that end in .safetensors",
        )  # fmt: skip
    return files


def check_config(folder: Path, load: Callable[[], None]) -> None:
    """Check the config of a local model, and load it in a child.

    Args:
        folder: The folder, of the user or of the hub's cache.
        load: Loads the config.

    Raises:
        BadFile: It is no JSON object, or ends, hangs or fills the process that loads it.
    """
    _json_object(folder, CONFIG)
    in_child(folder / CONFIG, load, what="the config", hint=HINT, seconds=CONFIG_SECONDS)


def check_tokenizer(folder: Path, load: Callable[[], None]) -> None:
    """Check the files of a local tokenizer, and load and use it in a child.

    Args:
        folder: The folder, of the user or of the hub's cache.
        load: Loads the tokenizer, encodes some text and renders a chat.

    Raises:
        BadFile: A file is no JSON object, has an id that no vocabulary has, or ends, hangs or fills the process that
            uses it.
    """
    for name in TOKENIZER_FILES:
        found = _json_object(folder, name)
        if name == TOKENIZER and found is not None:
            _check_ids(found, folder / name)
    read = [path for path in folder.glob("*") if path.suffix in TOKENIZER_SUFFIXES and path.is_file()]
    size = sum(path.stat().st_size for path in read)
    seconds = SECONDS + min(size / TOKENIZER_BYTES_A_SECOND, MOST_SECONDS)
    in_child(folder, load, what="the tokenizer", hint=HINT, seconds=seconds)


def _check_ids(found: dict[str, Any], path: Path) -> None:
    """Raise BadFile for an id that is no whole number up to `LARGEST_ID`."""
    model = found.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    added = found.get("added_tokens")
    ids = dict(words) if isinstance(words, dict) else {}
    if isinstance(added, list):
        ids |= {str(token.get("content")): token.get("id") for token in added if isinstance(token, dict)}
    for word, number in ids.items():
        if type(number) is not int or not 0 <= number <= LARGEST_ID:
            raise BadFile(
                f"the token {word!r:.80} has the id {number!r:.40}", where=str(path),
                expected=f"a whole number from 0 to {LARGEST_ID:,}", hint=HINT,
            )  # fmt: skip


def _json_object(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a JSON object of the folder, or None without the file."""
    try:
        path = _inside(folder, name)
    except MissingFile:
        return None
    found = read_json(path, limit=JSON_BYTES, nan=True)  # Python writes infinity, and transformers reads it
    if not isinstance(found, dict):
        raise BadFile("not a JSON object", where=str(path), expected="an object", hint=HINT)
    return found


def _inside(folder: Path, name: str) -> Path:
    blobs = folder.resolve().parent.parent / "blobs" if _is_hub_snapshot(folder) else None
    return inside(folder, name, links_to=blobs)


def _is_hub_snapshot(folder: Path) -> bool:
    """Return True in the cache of the hub, where files are links to `blobs`."""
    folder = folder.resolve()  # it may be given as "." or by a link
    return folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir()
