"""A slice of benchmarks/row_shapes.py: every row shape by kind of objective, and its ids and mask beside transformers'."""

from __future__ import annotations

import pytest
from row_shape_cases import SHAPES, TOOLS, Shape
from sft_rows import LONG, MARKED, ids_and_mask
from tokenizer_shapes import byte_level
from zoo import make

from alignzoo.core.errors import UserError
from alignzoo.data.convert import convert_rows
from alignzoo.data.formats.records import Records
from alignzoo.data.tokenize import tokenize
from alignzoo.interfaces.rows import Row

OBJECTIVES = {"SFT": "sft", "DPO": "dpo", "KTO": "kto", "ranked": "pl_dpo"}


def rows(shape: Shape, objective: str):
    row = Records(**shape.names).row("r", shape.record(0), "r")
    assert isinstance(row, Row), row
    return convert_rows([row], make(objective), "extremes")[0]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_shape_is_data_for_the_objectives_that_take_it(shape):
    for label, objective in OBJECTIVES.items():
        if label in shape.works:
            assert len(rows(shape, objective)) == 1
        else:
            with pytest.raises(UserError, match=r"needs|compares completions|closest reading"):
                rows(shape, objective)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "SFT" in shape.works], ids=lambda shape: shape.name)
def test_ids_and_mask_of_each_shape_are_those_of_what_it_means(shape):
    tokenizer = byte_level()
    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + MARKED
    (tree,) = tokenize(rows(shape, "sft"), tokenizer, LONG).trees
    ids, mask = ids_and_mask(type(tree)(tree.id, tree.prompt, tree.branches[:1]))
    meant = shape.meant(0)
    if isinstance(meant, list):
        tools = TOOLS if "tools" in shape.record(0) else None
        want = tokenizer.apply_chat_template(meant, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        assert ids == want["input_ids"][: len(ids)]
        assert mask == want["assistant_masks"][: len(ids)]
        assert not any(want["assistant_masks"][len(ids) :])
        return
    prompt, completion = meant
    want = tokenizer(prompt + completion, return_offsets_mapping=True)
    assert ids == [*want["input_ids"], tokenizer.eos_token_id]
    assert mask[1:] == [*(int(end > len(prompt)) for _, end in want["offset_mapping"][1:]), 1]
