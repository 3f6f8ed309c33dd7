"""The four published HH test files: what is known of them is what is read."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from alignzoo.data.sources.hh import HH
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.rows import Row, Skipped

FOLDER = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published HH files are not beside this checkout")

# rows, differing before the last turn, an empty last turn, chosen == rejected, a human turn after the last reply
KNOWN = {
    "helpful_base": (2354, 9, 4, 2, 0),
    "helpful_online": (1137, 0, 3, 2, 2),
    "helpful_rejection_sampled": (2749, 3, 0, 32, 0),
    "harmless_base": (2312, 5, 4, 0, 0),
}


def file_of(name: str) -> Path:
    return FOLDER / f"hh_{name}_test.jsonl.gz"


@pytest.mark.parametrize("name", KNOWN)
def test_odd_rows_are_used_or_counted(name):
    read = list(HH(path=str(file_of(name))).read("train"))
    rows = [row for row in read if isinstance(row, Row)]
    reasons = Counter(row.reason for row in read if isinstance(row, Skipped))
    contexts = [row for row in rows if any(completion.context for completion in row.completions)]
    count, differ, empty, equal, human_last = KNOWN[name]
    assert (len(read), len(contexts)) == (count, differ)
    expected = {"empty completion": empty, "chosen equals rejected": equal, "no assistant reply at the end": human_last}
    assert reasons == Counter({reason: n for reason, n in expected.items() if n})


@pytest.mark.parametrize("name", KNOWN)
def test_every_used_row_is_its_two_dialogues_and_ordinary_ones_have_the_authors_prompt(name):
    with gzip.open(file_of(name), "rt") as lines:
        records = {f"hh_{name}_test.jsonl.gz:{n}": json.loads(line) for n, line in enumerate(lines, 1)}
    rows = [row for row in HH(path=str(file_of(name))).read("train") if isinstance(row, Row)]
    for row in rows:
        record = records[row.id]
        chosen, rejected = row.completions
        assert row.prompt + chosen.context + chosen.text == record["chosen"]
        assert row.prompt + rejected.context + rejected.text == record["rejected"]
        if not chosen.context and not rejected.context:  # eric-mitchell/direct-preference-optimization, get_hh
            mark = "\n\nAssistant:"
            assert row.prompt == record["chosen"][: record["chosen"].rfind(mark) + len(mark)]


@pytest.mark.slow
def test_all_four_at_once_keep_conversations_on_one_side():
    rows = read_rows(HH(path=str(FOLDER / "hh_*_test.jsonl.gz")))
    assert (rows.read, len(rows.skipped), len(rows.train) + len(rows.held_out)) == (8552, 49, 8503)
    assert 0.08 < len(rows.held_out) / 8503 < 0.12
    assert not {row.group for row in rows.train} & {row.group for row in rows.held_out}


@pytest.mark.slow
def test_a_part_of_the_files_keeps_its_split():
    held = {row.id for row in read_rows(HH(path=str(FOLDER / "hh_*_test.jsonl.gz"))).held_out}
    part = read_rows(HH(path=str(file_of("harmless_base"))))
    assert {row.id for row in part.held_out} == {id for id in held if id.startswith("hh_harmless_base")}
