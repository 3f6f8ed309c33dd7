"""Checks before the first run: a comparison's baseline, chooser and frontier."""

from __future__ import annotations

from alignzoo.compare.columns import AT_ONE, KNOWN, OF_JUDGE, PAIRS, REPLIES
from alignzoo.compare.plan import Plan, start_of
from alignzoo.compare.spec import no_such_row
from alignzoo.core.errors import UserError, nearest


def check_plan(plan: Plan) -> None:
    """Check everything that the plan names, before any run.

    Raises:
        UserError: There is no such row, figure or judge.
    """
    check_names(plan)
    check_frontier(plan)


def check_names(plan: Plan) -> None:
    """Raise UserError, before any run, for an unknown baseline or metric.

    The baseline must be a row of the table, and `select` a metric of validation rows.
    """
    known = [column.key for column in KNOWN if column.group == PAIRS]
    known += [metric.name for job in plan.jobs for metric in job.resolved.recipe.eval.metrics]
    judges = [judge["name"] if isinstance(judge, dict) else str(judge) for judge in plan.comparison.judges]
    of_replies = [column.key for column in KNOWN if column.group == REPLIES]
    if plan.comparison.samples.main != 1:
        of_replies = [key for key in of_replies if key not in AT_ONE]
    of_replies += [f"{judge}.{key}" for judge in judges for key, *_ in OF_JUDGE]
    if plan.comparison.samples.validation_prompts:
        known += of_replies
    elif plan.comparison.select in of_replies:
        raise UserError(
            f"'{plan.comparison.select}' is a figure of replies, and there are none to validation prompts",
            where="select", expected="samples: {validation_prompts: 64}, or a figure of pairs",
        )  # fmt: skip
    if plan.comparison.select not in known:
        close = nearest(plan.comparison.select, known)
        raise UserError(
            f"there is no metric '{plan.comparison.select}' of validation rows", where="select", nearest=close,
            expected="" if close else f"one of {', '.join(dict.fromkeys(known))}",
        )  # fmt: skip
    wanted, labels = plan.comparison.baseline, plan.labels
    if wanted and wanted not in labels:
        raise no_such_row(wanted, "baseline", labels)


def check_frontier(plan: Plan) -> None:
    """Raise UserError, before any run, where a frontier is asked for that no run will record."""
    wanted = plan.comparison.frontier
    if wanted is None:
        return
    starts = {start_of(job.resolved) for job in plan.jobs}
    for job in plan.jobs:
        if job.resolved.fingerprint in starts:
            continue
        config = job.resolved.recipe.eval
        if config.replies.every is None:
            raise UserError(
                f"{job.label} records no replies along training, from which a frontier is made", where="frontier",
                expected="eval.replies: {every: 100, num_prompts: 128} in every recipe, or under `set`",
            )  # fmt: skip
        names = [judge.name for judge in config.judges]
        if wanted.reward not in names:
            close = nearest(wanted.reward, names)
            raise UserError(
                f"{job.label} has no judge '{wanted.reward}' in eval.judges", where="frontier.reward", nearest=close,
                expected="" if close else f"one of {', '.join(names)}" if names else "eval.judges in every recipe",
            )  # fmt: skip
