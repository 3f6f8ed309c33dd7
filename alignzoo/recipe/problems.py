"""The problems of one recipe, each at the file, line and column of its key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alignzoo.core.errors import Problem, UserError
from alignzoo.recipe.parse import Node


class Problems:
    """Collect every problem of a recipe, so that one error reports all of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.found: list[Problem] = []

    def add(self, at: Sequence[str], what: str, expected: str = "", nearest: str = "", hint: str = "") -> None:
        """Add a problem of the key at path `at`; the empty path is the whole recipe."""
        name = ".".join(at)
        self.found.append(
            Problem(f"{name}: {what}" if name else what, mark(self.node, at), expected, nearest, hint)
        )  # fmt: skip

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems that have their place already."""
        self.found.extend(problems)

    def raise_if_any(self) -> None:
        """Raise UserError with every problem once, in the order of the files' lines."""
        if self.found:
            raise UserError(sorted(dict.fromkeys(self.found), key=_order))


def mark(node: Node, path: Sequence[str]) -> str:
    """Return the place of the key at `path`, or of the innermost section that was written."""
    origin = node.origin
    for part in path:
        if isinstance(node.value, dict) and part in node.value:
            origin, node = node.keys.get(part, node.value[part].origin), node.value[part]
        elif isinstance(node.value, list) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            origin = node.origin
        else:
            break
    return str(origin)


def _order(problem: Problem) -> tuple[bool, str, int, int]:
    """Key that sorts problems by file, line and column.

    The count of those that are not shown comes at the end.
    """
    file, _, rest = problem.where.partition(".yaml:")
    line, column, *_ = [*(int(part) for part in rest.split(":") if part.isdigit()), 0, 0]
    return problem.what.endswith("more problems like these"), file, line, column
