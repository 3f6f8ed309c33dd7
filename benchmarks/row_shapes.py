"""Rows as people have them by objective, and their ids and masks beside transformers and TRL: the table row_shapes.md.

Run as: python benchmarks/row_shapes.py [--trl-python PATH_OF_A_PYTHON_WITH_TRL]

Each shape is a JSONL file of 24 rows. A cell is a run of one step with SFT, DPO, KTO or PL-DPO on it, from the file
to the trained policy, or the first line of its error. Ids and masks are those of the first row for SFT. transformers'
are of `apply_chat_template(return_assistant_tokens_mask=True)` on the same messages, and for texts those of the tokenizer.
Exits with 1 where a cell or a comparison is another than expected.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

import yaml  # noqa: E402
from beside_trl import RESULTS, SideFailed, run_side  # noqa: E402
from row_shape_cases import SHAPES, Shape  # noqa: E402
from sft_rows import LONG, MARKED  # noqa: E402
from tokenizer_shapes import byte_level  # noqa: E402
from transformers import PreTrainedTokenizerBase  # noqa: E402

import alignzoo  # noqa: E402
from alignzoo.core.errors import UserError, first_line  # noqa: E402
from alignzoo.data.convert import convert_rows  # noqa: E402
from alignzoo.data.formats.records import Records  # noqa: E402
from alignzoo.data.tokenize import tokenize  # noqa: E402
from alignzoo.interfaces.rows import Row  # noqa: E402
from alignzoo.objectives.builtin.sft import SFT  # noqa: E402

OBJECTIVES = {"SFT": "sft", "DPO": "dpo", "KTO": "kto", "ranked": "pl_dpo"}
ROWS = 24
IdsAndMask = tuple[list[int], list[int]]


def tokenizer_with_marks() -> PreTrainedTokenizerBase:
    """A small byte-level tokenizer with ChatML that marks what the assistant generates."""
    tokenizer = byte_level()
    tokenizer.chat_template = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + MARKED
    return tokenizer


def ours(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> IdsAndMask:
    """Return the ids and the mask of the first row for SFT."""
    row = Records(**shape.names).row("r", shape.record(0), "r")
    assert isinstance(row, Row), row
    (converted,), _ = convert_rows([row], SFT(), "extremes")
    (tree,) = tokenize([converted], tokenizer, LONG).trees
    branch, mask = tree.branches[0], [0] * len(tree.prompt)
    for start, stop in branch.spans.tolist():
        mask += [0] * (len(tree.prompt) + start - len(mask)) + [1] * (stop - start)
    return [*tree.prompt.tolist(), *branch.tokens.tolist()], mask


def theirs(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> IdsAndMask:
    """Return transformers' ids and mask of the same chat or text, up to the last scored token."""
    meant = shape.meant(0)
    if isinstance(meant, list):
        tools = shape.record(0).get("tools")
        found = tokenizer.apply_chat_template(
            meant, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = found["input_ids"], found["assistant_masks"]
    else:
        prompt, completion = meant
        found = tokenizer(prompt + completion, return_offsets_mapping=True)
        ids = [*found["input_ids"], tokenizer.eos_token_id]
        mask = [int(end > len(prompt)) for _, end in found["offset_mapping"]] + [1]
    return up_to_the_last_scored(ids, mask)


def up_to_the_last_scored(ids: list[int], mask: list[int]) -> IdsAndMask:
    """Cut what no loss depends on, and the score of the first token, which nothing predicts."""
    size = len(mask) - mask[::-1].index(1)
    return ids[:size], [0, *mask[1:size]]


def compared(own: IdsAndMask, other: IdsAndMask) -> str:
    """Return `equal`, or what differs in the other one."""
    if own == other:
        return "equal"
    size = len(own[0])
    if own == (other[0][:size], other[1][:size]):
        return f"equal, and {len(other[0]) - size} token more is scored after the end of the turn"
    if own[0] == other[0]:
        return f"equal ids; {sum(map(int.__ne__, own[1], other[1]))} tokens are scored by one alone"
    shared = next((n for n, (a, b) in enumerate(zip(own[0], other[0], strict=False)) if a != b), size)
    return f"ids differ from token {shared} on"


def trained(shape: Shape, objective: str, folder: Path) -> str:
    """Run one step of an objective on the shape's file. Returns `works`, or the first line of the error."""
    name = f"{shape.key}-{objective}"
    (folder / f"{shape.key}.jsonl").write_text("".join(json.dumps(shape.record(n)) + "\n" for n in range(ROWS)))
    recipe: dict[str, Any] = {
        "name": name, "objective": objective, "plugins": [str(folder / "zoo.py")], "reporters": [],
        "model": {"config": {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                             "num_attention_heads": 1, "max_position_embeddings": 512},
                  "tokenizer": str(folder / "tokenizer")},
        "data": {"name": "files", "path": str(folder / f"{shape.key}.jsonl"), "held_out_fraction": 0.4,
                 "format": {"name": "records", **shape.names}},
        "train": {"batch_size": 2, "max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
        "eval": {"replies": {"num_prompts": 0}},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    try:
        alignzoo.run(folder / f"{name}.yaml")
    except UserError as error:
        return re.sub(rf"(row )?\S*{shape.key}\.jsonl:\d+", "ROW", first_line(error))
    return "works"


def of_trl(python: str | None, folder: Path) -> dict[str, Any]:
    """Return TRL's ids and masks by shape, of the records as they are."""
    if python is None:
        return {}
    shapes = {shape.key: [shape.record(n) for n in range(2)] for shape in SHAPES}
    asked = {"tokenizer": str(folder / "tokenizer"), "shapes": shapes, "threads": 1}
    try:
        return dict(run_side(python, "trl_sft_rows.py", folder / "trl", asked)["shapes"])
    except SideFailed as failed:
        sys.exit(f"TRL: {failed}\n{failed.stderr[-2000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", help="a Python with TRL 1.16.0")
    parser.add_argument("--output", type=Path, default=RESULTS / "row_shapes.md")
    asked = parser.parse_args()
    tokenizer = tokenizer_with_marks()
    errors: dict[str, int] = {}
    lines, unexpected = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer.save_pretrained(folder / "tokenizer")
        zoo = ROOT / "plugins" / "alignzoo-zoo"
        (folder / "zoo.py").write_text(
            f"import sys\nsys.path.insert(0, {str(zoo)!r})\nfrom alignzoo_zoo import register_objectives\n"
        )
        trl = of_trl(asked.trl_python, folder)
        for number, shape in enumerate(SHAPES, 1):
            cells = {}
            for label, objective in OBJECTIVES.items():
                said = trained(shape, objective, folder)
                if (said == "works") != (label in shape.works):
                    unexpected += 1
                    print(f"UNEXPECTED {shape.name}, {label}: {said}")
                cells[label] = said if said == "works" else f"[{errors.setdefault(said, len(errors) + 1)}]"
            own = ours(shape, tokenizer) if "SFT" in shape.works else None
            beside = compared(own, theirs(shape, tokenizer)) if own else ""
            unexpected += beside not in ("", "equal")
            peer = trl.get(shape.key, {})
            if own and "ids" in peer:
                peer_says = compared(own, up_to_the_last_scored(peer["ids"], peer["mask"]))
            else:
                peer_says = peer.get("error", "").split(". ")[0].replace("|", "/") or (
                    "" if peer or not trl else "no mask"
                )
            print(f"{number:>2} {shape.name}: {cells} transformers {beside}; TRL {peer_says}")
            lines.append([str(number), shape.shown, *cells.values(), beside, peer_says])
    asked.output.write_text(page(lines, errors, bool(trl)))
    return int(unexpected > 0)


def page(lines: list[list[str]], errors: dict[str, int], with_trl: bool) -> str:
    """Return the table as Markdown."""
    head = ["", "columns", *OBJECTIVES, "SFT's ids and mask, transformers", "TRL 1.16.0"]
    rows = [head, ["---"] * len(head), *lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    said = "\n".join(f"{number}. {error}" for error, number in errors.items())
    command = "python benchmarks/row_shapes.py" + " --trl-python PYTHON" * with_trl
    return (
        f"# Row shapes\n\n`{command}`. A cell is a run of one step on a file of {ROWS} such rows, or the number of the "
        "first line of its error. The last columns compare the first row's ids and scored tokens up to the last scored "
        "one; TRL gets the same records, with `assistant_only_loss` for chats.\n\n"
        f"{table}\n\n## Errors\n\n{said}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
