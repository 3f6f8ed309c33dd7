"""Contradictions between the section `rollout` and the rest of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.probe import reads_reference
from alignzoo.recipe.draw_checks import Found, of_any_draw
from alignzoo.recipe.problems import Problems

COLUMNS = {"score"}
"""Columns that draws have."""
AT = ("rollout",)


def check_rollout(plain: dict[str, Any], problems: Problems) -> None:
    """Add a problem for each contradiction between an objective and `rollout`.

    The section's presence or one of its keys can contradict the objective.
    """
    objective, section = plain.get("objective"), plain.get("rollout")
    if not isinstance(objective, Objective):
        return
    if section is None:
        if objective.data == "group" or objective.drawn_by:
            problems.add(("objective",), f"{objective.name} learns from draws", "a section `rollout` with `rewards`")
        return
    if not isinstance(section, dict):
        return
    for at, what, expected in (*_of_objective(objective, section), *_of_sections(plain, section, objective)):
        problems.add(at, what, expected)


def _of_objective(objective: Objective, section: dict[str, Any]) -> Iterator[Found]:
    terms = [term for _, term in objective.terms]
    kinds = {term.data for term in terms}
    name, count = objective.name, section.get("completions", 8)
    if objective.head == "scalar":
        yield AT, f"{name} trains a reward model, which writes no completions", "a recipe without `rollout`"
    for term in terms:
        if term.drawn_by not in ((), objective.drawn_by):
            what = f"{term.name} needs draws of {', '.join(term.drawn_by)}"
            yield ("objective",), what, ", ".join(objective.drawn_by)
        if strange := sorted(set(term.columns) - COLUMNS):
            yield ("objective",), f"{term.name} needs the column '{strange[0]}', which draws do not have", ""
    needed = max(
        term.min_completions if term.data in ("group", "ranked") else 1 + (term.data == "pair") for term in terms
    )
    by = objective.drawn_by
    if section.get("pairs") == "data":
        needed = 1
    if by and isinstance(count, int) and count != len(by):
        yield (*AT, "completions"), f"of each prompt {name} has one draw of {', one of '.join(by)}", f"{len(by)}"
    elif isinstance(count, int) and count < needed:
        yield (*AT, "completions"), f"{name} compares the completions of a prompt", f"at least {needed}"
    if objective.data == "group" and section.get("top_p", 1.0) != 1.0:
        yield (*AT, "top_p"), f"{name} needs draws from the policy's whole distribution", "1.0"
    if section.get("pairs") == "data":
        if "pair" not in kinds or "ranked" in kinds or objective.drawn_by:
            yield (*AT, "pairs"), f"{name} does not compare the data's completion with a draw", "an objective on pairs"
        if strange := [term.name for term in terms if "score" in term.columns]:
            yield (*AT, "pairs"), f"{strange[0]} needs a score, which the data's completion has not", "extremes"
    elif given := [one.name for one in objective.components if getattr(one, "given_chosen", False)]:
        what = f"{given[0]} prefers an answer that is not the policy's own, such as a teacher's, to a draw"
        yield (*AT, "pairs"), what, "data, with such answers in the data"
    elif "rewards" not in section and not _takes_the_only_draw(objective, count):
        yield (*AT, "rewards"), "missing", "a list of judges"
    if (section.get("max_attempts") or 1) != 1:
        learns = "pairs: data learns" if section.get("pairs") == "data" else f"{name} learns"
        if section.get("pairs") == "data" or kinds == {"chosen"} or isinstance(section.get("labels"), float | int):
            yield (*AT, "max_attempts"), f"{learns} from draws of equal rewards too", "1"
        elif count == 1:
            yield (*AT, "max_attempts"), "a prompt has one completion, whose reward differs from no other", "1"
    if section.get("reference") == "rollout":
        yield from _of_moved_reference(objective)
    difference = any(getattr(one, "preference", "") == "bradley_terry" for one in objective.components)
    for n, reward in enumerate(section.get("rewards", ())):
        if reward.judge.only_compares and reward.weight and difference:
            what = f"{reward.judge.name} gives win rates, which are probabilities to be preferred themselves"
            yield (*AT, "rewards", str(n)), what, "objective.preference: given"
        if reward.judge.only_compares and (count == 1 or objective.greedy_baseline):
            what = f"{reward.judge.name} compares replies and gives no scores"
            yield (*AT, "rewards", str(n)), what, "a judge that scores each reply"
        elif reward.normalize and objective.greedy_baseline:
            what = f"{name} compares with the reward of the greedy completion, which is of no group"
            yield (*AT, "rewards", str(n), "normalize"), what, "null"
        elif reward.normalize == "group" and count == 1:
            yield (*AT, "rewards", str(n), "normalize"), "a prompt has one completion", "completions of at least 2"
    shape = {"pairs": ("pair", "pairs"), "labels": ("unpaired", "labels")}
    for key, (kind, words) in shape.items():
        if section.get(key) is not None and kind not in kinds:
            yield (*AT, key), f"{name} does not learn from {words}", "no such key"


def _takes_the_only_draw(objective: Objective, count: Any) -> bool:
    """Return True if draws are learnt from whatever their rewards, as in distillation."""
    return count == 1 and all(term.data == "chosen" and "score" not in term.columns for _, term in objective.terms)


def _of_moved_reference(objective: Objective) -> Iterator[Found]:
    """Yield why the reference can't be the policy that has drawn."""
    name, at = objective.name, (*AT, "reference")
    if objective.reference == "none":
        yield at, f"{name} has no reference", "no such key"
    elif objective.reference in ("live", "moving"):
        yield at, f"the reference of {name} runs beside the policy", "start"
    elif set(objective.drawn_by) - {"policy"}:
        yield at, f"{name} draws from its reference", "start"
    elif objective.data == "group" and not reads_reference(objective):
        what = f"{name} compares the policy that has drawn with the reference, which is then the same: its penalty is 0"
        yield at, what, "start"


def _of_sections(plain: dict[str, Any], section: dict[str, Any], objective: Objective) -> Iterator[Found]:
    train, figures = (plain.get(key) or {} for key in ("train", "eval"))
    data = plain.get("data")
    if section.get("reference") == "rollout" and "reference" in (plain.get("references") or {}):
        yield ("references", "reference"), "the reference is the policy that has drawn the rollout", "reference: start"
    prompts, batch = section.get("prompts"), train.get("batch_size", 64) if isinstance(train, dict) else 64
    if isinstance(prompts, int) and isinstance(batch, int) and batch > 0 and prompts % batch:
        yield (*AT, "prompts"), f"{prompts} prompts are no multiple of train.batch_size, {batch}", f"such as {batch}"
    if prompts == "all" and isinstance(train, dict) and train.get("epochs", 1) != 1:
        what = "with rollout.prompts=all every completion is of the start, and another pass would draw new ones"
        yield ("train", "epochs"), what, "1; rollout.epochs sets the passes over the completions"
    if isinstance(train, dict) and train.get("compile"):
        yield ("train", "compile"), "completions are drawn by the model's own layers", "false"
    if getattr(data, "label_noise", 0):
        yield ("data", "label_noise"), "labels are the rewards' own with `rollout`", "0"
    if getattr(data, "train_on", "") == "all":
        yield ("data", "train_on"), "'all' leaves no prompts to complete", "assistant"
    yield from of_any_draw(plain, section, *AT)
    if getattr(data, "prefix_tokens", None) is not None and section.get("pairs") == "data":
        yield ("data", "prefix_tokens"), "no completion of the data answers the beginning of a prompt", "no pairs: data"
    if objective.data == "group" and isinstance(figures, dict) and figures.get("metrics"):
        what = f"{objective.name} is evaluated on draws, which these metrics don't read"
        yield ("eval", "metrics"), what, "no metrics; rewards and KL are measured on held-out prompts"
