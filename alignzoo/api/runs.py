"""`alignzoo.run`: a run from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.api.progress import screen_of
from alignzoo.api.resolve import Given, resolve
from alignzoo.core.errors import UserError, kind_of
from alignzoo.training.run import RunResult, run_resolved

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.objective import Objective


def run(
    recipe: Given,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    *,
    data: Any = None,
    model: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    objective: Objective | str | Mapping[str, Any] | Sequence[Any] | None = None,
    fresh: bool = False,
    quiet: bool | None = None,
    resume_from: str | Path | None = None,
) -> RunResult:
    """Run a recipe, after the runs that it needs.

    A finished run is returned, and a stopped one continues. Data and models in memory are identified by their content
    at every call: the same content finds the same run, and a changed model is another one. `model` itself is not
    trained: the trained policy is `RunResult.policy`.

    Args:
        recipe: A file, a run folder or a shipped recipe's name; or a dictionary of sections, a `Recipe` or what
            `load_recipe` returns.
        overrides: `{"objective.beta": 0.2}` or `["objective.beta=0.2"]`.
        overlays: Recipe files merged over it, in order.
        data: In place of the recipe's data: a list of dictionaries, a `datasets.Dataset`, a DataFrame, or a mapping of
            `train` and `test` to these; or a file, a folder or a data source. Columns are read as those of a file.
        model: In place of the recipe's model: a Hugging Face model, a folder or a hub id.
        tokenizer: Its tokenizer; by default that of the model's name.
        objective: In place of the recipe's objective: an instance, or what a recipe writes under `objective`. Its class
            need not be registered: its source is then part of the run's identity.
        fresh: Remove what a run left before, and start again.
        quiet: Print no progress. By default it is shown in a notebook and on a terminal.
        resume_from: A checkpoint of this recipe, or of one that differs in its length alone, to go on from.

    Raises:
        UserError: The recipe, the data or the model has a mistake.
        RunFailed: The run could not continue.
    """
    resolved = resolve(recipe, overrides, overlays, data=data, model=model, tokenizer=tokenizer, objective=objective)
    if not isinstance(resume_from, str | Path | None):
        raise UserError(f"resume_from is {kind_of(resume_from)}", where="resume_from", expected="a checkpoint's folder")
    given = Path(resume_from) if resume_from else None
    result = run_resolved(resolved, fresh=fresh, screen=screen_of(quiet), resume_from=given)
    return replace(result, resolved=resolved)
