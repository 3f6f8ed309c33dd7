"""Rows of SFT as trees, and templates with and without marks, for several test files."""

from __future__ import annotations

import numpy as np
from tokenizer_shapes import CHATML

from alignzoo.data.convert import convert_rows
from alignzoo.data.formats.row_shapes import record_row
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.rows import Row
from alignzoo.recipe.schema import TokensConfig

LONG = TokensConfig(max_length=4096, max_prompt_length=2048)
MARKED = CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
).replace(
    "{% endfor %}<|im_end|>\n",
    "{% endfor %}<|im_end|>{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}<|im_end|>\n{% endif %}",
)
"""CHATML with marks: what the assistant writes, calls and the end of its turn included."""
PLAIN = CHATML.replace("{{ m.content }}", "{{ m.content or '' }}")
TOOL = {"type": "function", "function": {"name": "sea"}}


def say(role, text, **more):
    return {"role": role, "content": text, **more}


CALL = say("assistant", None, tool_calls=[{"type": "function", "function": {"name": "sea", "arguments": {"at": "a"}}}])


def row_of(record) -> Row:
    row = record_row("r", record, {}, "r")
    assert isinstance(row, Row), row
    return row


def tree_of(tokenizer, record, tokens=LONG, train_on="assistant"):
    rows, skipped = convert_rows([row_of(record)], Chosen(), "extremes", train_on)
    done = tokenize(rows, tokenizer, tokens, train_on=train_on)
    assert [*skipped, *done.skipped] == []
    (tree,) = done.trees
    assert len(tree.branches) == 1
    return tree


class Chosen(Objective):
    name, data, reference = "chosen_only", "chosen", "none"


def ids_and_mask(tree) -> tuple[list[int], list[int]]:
    (branch,) = tree.branches
    mask = np.zeros(len(branch.tokens), int)
    for start, stop in branch.spans.tolist():
        mask[start:stop] = 1
    return [*tree.prompt.tolist(), *branch.tokens.tolist()], [0] * len(tree.prompt) + mask.tolist()
