"""Tokenizer shapes by kinds of rows: the table of docs/tokenizers.md, and what whole texts cost on real rows.

Run as: python benchmarks/tokenizer_table.py [FILE.jsonl.gz ...]
The shapes, the rows and the checks are the tests' own (tests/data/test_tokenizers.py); the oracle is transformers. With
files in HH's format it also times tokenizing them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "data")]

import test_tokenizers as checks  # noqa: E402
from tokenizer_shapes import SHAPES  # noqa: E402

from alignzoo.data.sources.hh import HH  # noqa: E402
from alignzoo.data.splits import read_rows  # noqa: E402
from alignzoo.data.tokenize import Encoder  # noqa: E402
from alignzoo.models.sources.transformers import TokenizerConfig  # noqa: E402
from alignzoo.models.tokenizers import train_tokenizer  # noqa: E402

PAGE = ROOT / "docs" / "tokenizers.md"
MARK = "<!-- the table: python benchmarks/tokenizer_table.py -->"


def outcome(check: Callable[[], None]) -> str:
    """`equal`, or the word for what went wrong."""
    try:
        check()
    except AssertionError:
        return "**differs**"
    return "equal"


def table() -> str:
    """Markdown: a row for each shape, a column for each kind of rows."""
    kinds = {
        "pair, completion only": checks.test_pairs_are_the_ids_of_the_whole_text,
        **{kind: lambda shape, kind=kind: checks.test_chats_are_the_ids_of_the_whole_chat(shape, kind)
           for kind in checks.CHATS},
        "thinking": checks.test_thoughts_are_kept_behind_the_generation_prompt_or_cut_by_the_template,
    }  # fmt: skip
    lines = [f"| tokenizer | {' | '.join(kinds)} | rows of {len(checks.PAIRS)} whose cut a token spans |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for shape in SHAPES:
        found = [outcome(lambda check=check, shape=shape: check(shape)) for check in kinds.values()]
        records = [{"prompt": prompt, "chosen": one, "rejected": two} for prompt, one, two in checks.PAIRS]
        spans = checks.trees(checks.tokenizer_of(shape), records).boundary[checks.SPANNING]
        lines.append(f"| {shape} | {' | '.join(found)} | {spans} |")
    return "\n".join(lines)


def timed(paths: list[str]) -> None:
    """Print rows a second of whole texts, and of each text once as a floor (prompt and completions apart)."""
    rows = read_rows(HH(path=tuple(paths))).train[:8192]
    tokenizer = train_tokenizer(TokenizerConfig(train="bpe", vocab_size=8192), rows)
    encoder = Encoder(tokenizer)
    apart = [text for row in rows for text in (row.prompt, *(one.text for one in row.completions))]
    ways = {"whole texts, cut": lambda: encoder(rows), "prompt and completions apart": lambda: tokenizer(apart)}
    for name, work in ways.items():
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        print(f"{name}: {len(rows) / min(taken):,.0f} rows/s of {len(rows):,} (best of 3)")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(MARK)
    _, _, rest = after.partition("\n\n## ")
    PAGE.write_text(f"{before}{MARK}\n\n{table()}\n" + (f"\n## {rest}" if rest else ""), encoding="utf-8")
    if sys.argv[1:]:
        timed(sys.argv[1:])
