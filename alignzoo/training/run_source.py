"""The source of a run's weights, by its recipe and those of the runs before it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import try_to_load_from_cache
from pydantic import BaseModel, Field

from alignzoo.core.door import BadFile, read_yaml, validated


class RunSource(BaseModel):
    """Fields of the section `model` of a run's recipe that an export reads.

    A plugin's source has fields of its own.
    """

    from_: str | None = Field(None, alias="from")
    path: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantize: Literal["4bit", "8bit"] | None = None
    trust_remote_code: bool = False


def source_of(run: Path) -> RunSource:
    """Return the section `model` of a run's recipe. Raises BadFile if the recipe is damaged."""
    path = run / "recipe.yaml"
    node = read_yaml(path)
    model = node.plain().get("model") if node is not None and isinstance(node.value, dict) else None
    if not isinstance(model, dict):
        raise BadFile("damaged: it has no section 'model'", where=str(path))
    names = {"from", *RunSource.model_fields}
    found: RunSource = validated({key: value for key, value in model.items() if key in names}, path, RunSource)
    return found


def starts_of(run: Path) -> list[tuple[Path, RunSource]]:
    """Return a run and the runs that it starts from, the run itself first, with their sources.

    The list ends with the run whose source is no other run, or before a run whose folder is gone.
    """
    found = [(run, source_of(run))]
    while (named := found[-1][1].from_) is not None:
        before = (found[-1][0] / named).parent
        if before.resolve() in [path.resolve() for path, _ in found] or not (before / "recipe.yaml").is_file():
            break
        found.append((before, source_of(before)))
    return found


def file_of_source(source: RunSource, name: str) -> Path | None:
    """Return a file beside the weights of a source, in its folder or in the hub's cache.

    Returns None where the file is not on this machine, and for weights that are random or of a run.
    """
    if source.path is None:
        return None
    if Path(source.path).is_absolute():
        beside = Path(source.path) / name
        return beside if beside.is_file() else None
    found = try_to_load_from_cache(source.path, name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None
