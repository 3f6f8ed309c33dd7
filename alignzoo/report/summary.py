"""The table that `alignzoo run` prints at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.table import Table

from alignzoo.data.statistics import source_lines
from alignzoo.training.headline import headline
from alignzoo.training.records import set_names


def summary_table(summary: dict[str, Any]) -> Table:
    """Return a run's summary as a table of about a dozen lines."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in summary_lines(summary):
        table.add_row(name, text)
    return table


BESIDE = {
    "live": "a frozen copy of the start",
    "moving": "a copy of the start that is updated towards the policy",
}


def summary_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (heading, text) of the most important figures."""
    if "draws" in summary:
        return [line for side, figures in summary["draws"].items() for line in draw_lines(side, figures)]
    scores, train, data = summary["eval"], summary["train"], summary["data"]
    cached, scored = summary["reference"]["rows_cached"], summary["reference"]["rows_scored"]
    figures = headline(scores, summary.get("accuracy_of", {}))
    first = [(figure.label, figure.words) for figure in figures]
    if "margin" in scores:
        first.append(("margin", number(scores["margin"], ".3f")))
    losses = f"{number(train['final_loss'], '.4f')} in the last step"
    losses = f"{scores['loss']:.4f} held out, {losses}" if "loss" in scores else losses
    lines = [
        ("objective", objective_words(summary["objective"])),
        *first,
        *_measured(scores, [figure.key for figure in figures]),
        *(_judged(name, figures) for name, figures in summary.get("judges", {}).items()),
        *_sets(scores, summary.get("accuracy_of", {})),
        ("loss", losses),
        ("data", f"{data['train']:,} training rows, {data['skipped']:,} of {data['read']:,} read were skipped"),
        ("training", f"{train['steps']:,} steps in {train['seconds']:.1f} s, {train['pairs_per_second']:.0f} rows/s, "
                     f"{train['tokens_per_second']:,.0f} token slots/s"),
        *_selection(summary.get("selection", {})),
        ("reference", f"{scored:,} rows scored, {cached:,} from the cache" if scored + cached
                      else _beside(summary["reference"])),
        ("layout", f"{summary['layout']['used']}: {summary['layout']['reason']}"),
        *_exactness(summary.get("exactness", {})),
        ("peak memory", f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB"),
    ]  # fmt: skip
    if train.get("zero_weight_steps"):
        lines.append(("steps without weight", f"{train['zero_weight_steps']:,}, which changed no weights"))
    if data.get("flipped"):
        place = [name for name, _ in lines].index("training")
        lines.insert(place, ("label noise", f"{data['flipped']:,} training labels were flipped"))
    if data.get("sources"):
        place = [name for name, _ in lines].index("training")
        lines[place:place] = [("", line) for line in source_lines(data["sources"])]
    return lines


def draw_lines(side: str, figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (heading, text) of the draws of one side of a data set, `train` or `test`."""
    name = "held out" if side == "test" else side
    counts = f"{figures['draws']:,} of {figures['prompts']:,} prompts"
    counts += f", {figures['repeated']:,} with the tokens of an earlier one" if figures["repeated"] else ""
    rewards = {key.removeprefix("reward_"): value for key, value in figures.items()
               if key.startswith("reward_") and key != "reward_se" and not key.endswith("_missing")}  # fmt: skip
    own = "".join(f", {key} {value:.4g}" for key, value in rewards.items() if len(rewards) > 1)
    error = f" ± {figures['reward_se']:.3f}" if "reward_se" in figures else ""
    lines = [(f"draws, {name}", counts)]
    if "reward" in figures:
        lines.append(("reward", f"{figures['reward']:.4f}{error}{own}"))
    if figures.get("left_out"):
        lines.append(("left out", f"{figures['left_out']:.1%} of the draws"))
    lines.append(("length", f"{figures['length']:.1f} tokens, {figures['finished']:.1%} of the draws end"))
    if "pairs" in figures:
        lines.append(("pairs", f"{figures['pairs'] - figures['tied_pairs']:,} of different scores, "
                               f"{figures['tied_pairs']:,} ties"))  # fmt: skip
    return lines


def _selection(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which checkpoint was exported, where an evaluation's figure chose it."""
    if found.get("step") is None:
        return []
    words = f"step {found['step']:,}, the best of {found['evaluations']:,} evaluations"
    words += f" by {found['metric']} ({number(found['value'], '.4g')} on the validation rows)"
    stopped = f"; stopped after {found['patience']:,} without a better one" if found.get("stopped_early") else ""
    return [("checkpoint", words + stopped)]


def _beside(reference: dict[str, Any]) -> str:
    """Describe a reference that nothing was cached of."""
    kind = reference.get("kind", "")
    if kind == "live" and "reference" in reference.get("named", ()):
        return "the model that the recipe names, beside the policy"
    return BESIDE.get(kind, "not needed")


def number(value: float | None, spec: str) -> str:
    """Return a figure as text, or "none" for one that was left out."""
    return "none" if value is None else format(value, spec)


def _sets(scores: dict[str, Any], of: dict[str, str]) -> list[tuple[str, str]]:
    """Return a line for each evaluation set: its loss, its accuracies and its size."""
    lines = []
    for name in set_names(scores):
        own = {key.partition("/")[2]: value for key, value in scores.items() if key.startswith(f"{name}/")}
        parts = [f"loss {number(own.get('loss'), '.4f')} (before training {number(own.get('loss_before'), '.4f')})"]
        figures = [replace(figure, about="") for figure in headline(own, of) if figure.key != "loss"]
        parts += [f"{figure.label.removeprefix('held-out ')} {figure.words}" for figure in figures]
        lines.append((f"on {name}", f"{', '.join(parts)} (n {own['n']:,})"))
    return lines


def _measured(scores: dict[str, Any], shown: list[str]) -> list[tuple[str, str]]:
    """Return the recipe's metrics: figures with a standard error, beyond the headline's."""
    named = [name for name in scores if f"{name}_se" in scores and name not in shown]
    named = [name for name in named if name.rpartition("/")[2] != "preference_accuracy"]  # of an evaluation set
    return [(name.replace("_", " "), f"{scores[name]:.4g} ± {scores[f'{name}_se']:.2g}") for name in named]


def _exactness(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the largest difference from the model's own forward."""
    parts = []
    if found.get("checks"):
        over = f", {found['over']:,} over it" if found["over"] else ""
        parts.append(
            f"at most {found['difference']:.2g} nats per token from the model's own forward "
            f"(limit {found['limit']:.2g}; {found['checks']:,} checks{over})"
        )
    if "unavailable" in found:
        parts.append(f"steps were not checked: {found['unavailable']}")
    return [("exactness", "; ".join(parts))] if parts else []


def _judged(name: str, figures: dict[str, Any]) -> tuple[str, str]:
    """Return one judge's figures in a line."""
    if "problem" in figures:
        return f"judge {name}", f"failed: {figures['problem']}"

    def figure(key: str) -> str:
        return "none" if figures[key] is None else f"{figures[key]:.3f} ± {number(figures[f'{key}_se'], '.3f')}"

    parts = [f"beats the start in {figure('win_rate_over_start')}, the chosen in {figure('win_rate_over_chosen')}"]
    if "reward" in figures:
        parts.insert(0, f"{figure('reward_before')} before, {figure('reward')} after")
    return f"judge {name}", f"{'; '.join(parts)} (n {figures['win_rate_over_start_n']:,})"


def objective_words(node: dict[str, Any]) -> str:
    """Return an objective of summary.json in a line."""
    if "terms" in node:
        return " + ".join(f"{term['weight']:g} {objective_words(term)}" for term in node["terms"])
    fields = ", ".join(f"{key}={value}" for key, value in node.items() if key not in ("name", "weight", "modifiers"))
    around = "".join(f" with {one['name']}" for one in node.get("modifiers", ()))
    return f"{node['name']}({fields}){around}"
