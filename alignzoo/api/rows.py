"""`alignzoo.score` and `alignzoo.generate`: log-probs of rows, and replies of a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from alignzoo.api.inputs import rows_path
from alignzoo.api.progress import screen_of
from alignzoo.api.resolve import Given, resolve
from alignzoo.core.errors import UserError
from alignzoo.core.files import check_output
from alignzoo.recipe.sampling import LEAST_TEMPERATURE, LEAST_TOP_P, is_temperature
from alignzoo.training.generate import Drawing, reply_to_file
from alignzoo.training.records import read_lines
from alignzoo.training.row_scores import write_scores
from alignzoo.training.run import RunResult
from alignzoo.training.runs import find_run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignzoo.interfaces.objective import Objective


def score(
    recipe: Given | RunResult,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    *,
    split: Literal["held_out", "train", "all"] = "all",
    output: str | Path | None = None,
    data: Any = None,
    model: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    objective: Objective | str | Mapping[str, Any] | Sequence[Any] | None = None,
    quiet: bool | None = None,
) -> list[dict[str, Any]]:
    """Return every row's log-probs under the trained policy and its reference.

    The recipe is run first where its run is not finished. The arguments are those of `run`, and:

    Args:
        recipe: The recipe, or a run.
        overrides: As for `run`.
        overlays: As for `run`.
        split: The rows to score.
        output: A .jsonl file to write as well.
        data: As for `run`.
        model: As for `run`.
        tokenizer: As for `run`.
        objective: As for `run`.
        quiet: As for `run`.

    Returns:
        For each row its `id`, `split`, `prompt_tokens`, and for each completion token ids and log-probs in nats.

    Raises:
        UserError: As `run`, or the run trains a reward model.
        RunFailed: As `run`.
    """
    if split not in ("held_out", "train", "all"):
        raise UserError(f"there is no split '{split}'", where="split", expected="held_out, train or all")
    given = (recipe.resolved or recipe.folder) if isinstance(recipe, RunResult) else recipe
    resolved = resolve(given, overrides, overlays, data=data, model=model, tokenizer=tokenizer, objective=objective)
    if output is not None:
        check_output(Path(output))
    with TemporaryDirectory() as folder:
        file = Path(folder, "scores.jsonl") if output is None else Path(output)
        write_scores(resolved, file, split, screen_of(quiet))
        return read_lines(file)


def generate(
    run: str | Path | RunResult,
    prompts: str | Path | Sequence[str | Mapping[str, Any]] | Any,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int | None = None,
    seed: int = 0,
    samples: int = 1,
    quiet: bool | None = None,
) -> list[dict[str, Any]]:
    """Return replies of a finished run's policy, as `alignzoo generate` writes them.

    Args:
        run: What `alignzoo.run` returned; or a run folder, its name in the folder of runs, or a recipe.
        prompts: Texts, or records such as `{"prompt": ...}` or `{"messages": [...]}`; or a file of them.
        temperature: Temperature of the draws; 0 takes the likeliest token.
        top_p: Draws are from the likeliest tokens with this share of the mass.
        max_new_tokens: Limit of a reply in tokens; by default the recipe's `eval.replies.max_new_tokens`.
        seed: Seed of the draws. Each reply has its own random numbers.
        samples: Replies to each prompt.
        quiet: Print no progress. By default it is shown in a notebook and on a terminal.

    Returns:
        For each reply, in the order of the prompts: `id`, `prompt` as the model reads it, `reply`, `finished`, `tokens`
        and `log_prob`, the sum over the reply's tokens in nats.

    Raises:
        UserError: The run is not finished or trains a reward model, or there is no prompt.
    """
    fits = _is_real(temperature) and is_temperature(temperature)
    _check("temperature", temperature, fits, f"0, or a number of at least {LEAST_TEMPERATURE}")
    _check("top_p", top_p, _is_real(top_p) and LEAST_TOP_P <= top_p <= 1, f"a number from {LEAST_TOP_P} to 1")
    if max_new_tokens is not None:
        _check_count("max_new_tokens", max_new_tokens, 1)
    _check_count("seed", seed, 0)
    _check_count("samples", samples, 1)
    if samples > 1 and temperature == 0:
        raise UserError(
            f"{samples} samples of the likeliest tokens are all the same", where="samples",
            expected="temperature above 0, such as 1",
        )  # fmt: skip
    if not isinstance(run, str | Path | RunResult):
        raise UserError(
            f"a {type(run).__name__} is no run", where="run", expected="a RunResult, a run folder or its name"
        )
    folder, resolved = (run.folder, run.resolved) if isinstance(run, RunResult) else (find_run(run), None)
    if isinstance(prompts, list | tuple):
        prompts = [{"prompt": one} if isinstance(one, str) else one for one in prompts]
    file = Path(prompts) if isinstance(prompts, str | Path) else rows_path(prompts, "prompts")
    settings = Drawing(temperature, top_p, max_new_tokens, seed, samples)
    return reply_to_file(folder, file, settings, screen_of(quiet), resolved)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_count(name: str, value: Any, least: int) -> None:
    fits = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    _check(name, value, fits, f"a whole number of at least {least}")


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise UserError(f"{name} is {value!r:.60}", where=name, expected=expected)
