"""The judges that a comparison names, made by the registry as a recipe's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.errors import Problem, UserError
from alignzoo.judge import Judge
from alignzoo.recipe.confidential import refuse_secrets
from alignzoo.recipe.named import several
from alignzoo.recipe.read import COMMAND_LINE, Node, Origin, from_value
from alignzoo.registry import registry


def make_judges(given: Sequence[Any], node: Node) -> list[Judge]:
    """Names, or {name: ..., fields}; `node` is where they were written. Raises UserError with every problem."""
    refuse_secrets(from_value({"judges": list(given)}, Origin(COMMAND_LINE)))
    problems: list[Problem] = []
    steps = several(list(given), ("judges",), "judge", node, registry())
    while True:
        try:
            problems.append(next(steps))
        except StopIteration as end:
            if problems:
                raise UserError(problems) from None
            return list(end.value)
