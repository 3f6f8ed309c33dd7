"""Detection of secrets in recipes.

Recipes are printed, copied into run folders and sent to trackers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from alignzoo.core.errors import Problem, UserError
from alignzoo.core.redaction import holds_secret
from alignzoo.recipe.parse import Node

_CALLED = re.compile(
    r"(.+_)?(api_?key|access_?key|secret(_?key)?|private_?key|password|passwd|passphrase|authorization|credentials?)"
    r"|token|(.+_)?(hf|hub|auth|access|api|bearer|secret)_?token",
    re.IGNORECASE,
)
"""Keys whose text is a secret; `eos_token` and `key_env` do not match."""
HINT = "set an environment variable, and write its name in the field for it (key_env)"


def refuse_secrets(node: Node) -> None:
    """Raise UserError with the place of every secret, never its value."""
    problems = list(_secrets(node, ()))
    if problems:
        raise UserError(problems)


def _secrets(node: Node, at: tuple[str, ...]) -> Iterator[Problem]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            if _CALLED.fullmatch(key) and isinstance(child.value, str) and child.value:
                where = str(node.keys.get(key, child.origin))
                yield Problem(f"{'.'.join((*at, key))}: a recipe holds no secret", where, hint=HINT)
            else:
                yield from _secrets(child, (*at, key))
    elif isinstance(node.value, list):
        for i, child in enumerate(node.value):
            yield from _secrets(child, (*at, str(i)))
    elif isinstance(node.value, str) and holds_secret(node.value):
        yield Problem(f"{'.'.join(at)}: it holds a secret, and a recipe holds none", str(node.origin), hint=HINT)
