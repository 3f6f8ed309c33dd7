"""A data set of draws: the rows of its files, and its figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.data.drawn_rows import OWN
from alignzoo.models.ending import Ending
from alignzoo.recipe.draw import DrawConfig
from alignzoo.rollouts.attempts import Attempt
from alignzoo.rollouts.figures import figures
from alignzoo.rollouts.prompts import Prompts
from alignzoo.rollouts.rewards import Judged, combine, reward_names


def reward_columns(config: DrawConfig) -> list[str]:
    """Return the key of each reward's scores in a row."""
    return [f"reward_{name}" if name in OWN else name for name in reward_names(config.rewards)]


def final_rewards(config: DrawConfig, prompts: Prompts, made: Attempt) -> Judged:
    """Return the weighted sums of all draws, normalized as the recipe says."""
    return combine(made.raw, made.draws.finished, config, prompts.ids(made.places))


def drawn_rows(
    config: DrawConfig, prompts: Prompts, made: Attempt, judged: Judged, ending: Ending, batch: int = 256
) -> Iterator[dict[str, Any]]:
    """Yield a row for each prompt, as `alignzoo.data.drawn_rows.DrawnRow` has it.

    Args:
        config: The section `draw`.
        prompts: The prompts of one side of the split.
        made: The draws of all of them, with the judges' scores.
        judged: The weighted sums.
        ending: What ends a completion; the texts are without.
        batch: Prompts whose draws are decoded at once.
    """
    names, each = reward_columns(config), config.completions
    for start in range(0, len(made.places), batch):
        part = made.take(np.arange(start, min(start + batch, len(made.places))))
        texts = ending.texts(list(part.draws))
        ids, tokens = prompts.ids(part.places), prompts.tokens(part.places)
        for b, place in enumerate(part.places.tolist()):
            row = prompts.data.rows[int(prompts.rows[place])]
            own = slice(b * each, (b + 1) * each)
            sums = [
                float(reward) if kept else None
                for reward, kept in zip(judged.reward[start + b], judged.kept[start + b], strict=True)
            ]
            yield {
                "id": ids[b],
                "prompt": row.prompt if isinstance(row.prompt, str) else [dict(message) for message in row.prompt],
                "completions": texts[own],
                **({"scores": sums} if config.rewards else {}),
                **{name: _or_none(part.raw[n, own]) for n, name in enumerate(names)},
                "finished": part.draws.finished[own].tolist(),
                "group": row.group,
                "columns": row.all_columns,
                **({} if row.tools is None else {"tools": [dict(tool) for tool in row.tools]}),
                **({"chat_template_kwargs": dict(row.template_kwargs)} if row.template_kwargs else {}),
                "prompt_ids": tokens[b].tolist(),
                "completion_ids": [part.draws[n].tolist() for n in range(own.start, own.stop)],
            }


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def data_set_figures(config: DrawConfig, made: Attempt, judged: Judged) -> dict[str, Any]:
    """Return the figures of one side: those of a rollout, and counts of pairs and ties.

    Args:
        config: The section `draw`.
        made: The draws of all prompts.
        judged: Their weighted sums, normalized as the recipe says.

    Returns:
        Figures by name. `prompts` and `draws` are counts; `finished` is the share of draws that end. `pairs` counts the
        pairs of draws of a prompt with different tokens that are both kept, `tied_pairs` those of equal scores, and
        `repeated` the draws with the tokens of an earlier one.
    """
    plain = combine(
        made.raw,
        made.draws.finished,
        config.model_copy(update={"missing": "drop"}),
        [""] * len(made.places),
        normalize=False,
    )
    found: dict[str, Any] = {"prompts": len(made.places), "draws": len(made.draws)}
    found |= figures(made.draws, made.raw, plain, config.rewards)
    found["finished"] = 1 - found.pop("unfinished")
    pairs = ties = repeated = 0
    each = config.completions
    for b in range(len(made.places)):
        tokens = [made.draws[b * each + g].tobytes() for g in range(each)]
        first = [g for g in range(each) if tokens[g] not in tokens[:g]]
        repeated += each - len(first)
        kept = [float(judged.reward[b, g]) for g in first if judged.kept[b, g]]
        pairs += len(kept) * (len(kept) - 1) // 2
        ties += sum(n * (n - 1) // 2 for n in np.unique(kept, return_counts=True)[1].tolist())
    found["repeated"] = repeated
    return found | ({"pairs": pairs, "tied_pairs": ties} if config.rewards and each > 1 else {})
