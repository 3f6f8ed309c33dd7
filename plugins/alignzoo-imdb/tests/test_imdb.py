import gzip
import json
from pathlib import Path

import pytest
from alignzoo_imdb import IMDb

from alignzoo import Skipped, UserError

REAL = Path(__file__).parents[4] / "shared" / "data" / "imdb_test.jsonl.gz"


def test_a_review_is_a_prompt_and_a_labeled_rest():
    row = IMDb(prompt_words=2, words=5).row("x:1", {"text": "What a<br />fine film it is", "label": 1}, "x:1")
    assert (row.prompt, row.completions[0].text) == ("What a", " fine film it")
    assert row.completions[0].columns == {"desirable": 1.0}
    assert row.group == row.prompt


def test_a_review_of_nothing_but_a_prompt_is_skipped():
    assert isinstance(IMDb().row("x:1", {"text": "Three words only", "label": 0}, "x:1"), Skipped)


@pytest.mark.parametrize(("record", "problem"), [({"label": 1}, "no text field"), ({"text": "a", "label": 2}, "is 2")])
def test_what_is_no_review_is_an_error_with_its_place(record, problem):
    with pytest.raises(UserError, match=problem) as error:
        IMDb().row("x:7", record, "reviews.jsonl:7")
    assert "reviews.jsonl:7" in str(error.value)


def test_real_reviews():
    if not REAL.is_file():
        pytest.skip(f"no real data at {REAL}")
    with gzip.open(REAL, "rt", encoding="utf-8") as file:
        rows = [IMDb().row(str(i), json.loads(line), str(i)) for i, line in enumerate(file)]
    labels = [row.completions[0].columns["desirable"] for row in rows if not isinstance(row, Skipped)]
    assert len(labels) == 3000
    assert sum(labels) == 1500
