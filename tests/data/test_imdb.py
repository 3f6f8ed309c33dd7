"""Film reviews: IMDb's files and the embedded ones, as texts and as labeled completions."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from alignzoo.core.errors import UserError
from alignzoo.data.sources import imdb
from alignzoo.data.sources.imdb import IMDb
from alignzoo.data.toy import labeled_reviews
from alignzoo.data.toy.reviews import ADJECTIVES, ROWS
from alignzoo.interfaces.rows import Completion, Row, Skipped

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_the_embedded_reviews_agree_with_their_labels():
    """A count of adjectives finds the label of most reviews, but not from the first sentence."""
    right = first = 0
    seen = set()
    for split, count in ROWS.items():
        records = list(labeled_reviews(split))
        assert len(records) == count
        assert abs(sum(one["label"] for one in records) / count - 0.5) < 0.05
        assert not seen & {one["text"] for one in records}
        seen |= {one["text"] for one in records}
        for one in records:
            words = re.findall(r"\w+", one["text"])
            tone = sum((word in ADJECTIVES[1]) - (word in ADJECTIVES[0]) for word in words)
            right += (tone > 0) == one["label"] if tone else 0.5
            start = re.findall(r"\w+", one["text"].partition(".")[0])
            tone = sum((word in ADJECTIVES[1]) - (word in ADJECTIVES[0]) for word in start)
            first += (tone > 0) == one["label"] if tone else 0.5
    total = sum(ROWS.values())
    assert right / total > 0.9
    assert 0.6 < first / total < 0.8
    assert next(iter(labeled_reviews("test"))) == next(iter(labeled_reviews("test")))


def test_a_review_is_a_text_or_a_labeled_completion(tmp_path):
    lines = [
        {"text": "Good.<br /><br />Very  good", "label": 1},
        {"text": "Bad", "label": 0},
        {"text": " <br />", "label": 0},
    ]
    path = tmp_path / "imdb.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = list(IMDb(path=str(path)).read("train"))
    assert texts[0] == Row("imdb.jsonl:1", "", (Completion("Good. Very good"),), group="Good. Very good")
    assert isinstance(texts[2], Skipped)
    labeled = list(IMDb(path=str(path), labeled=True).read("train"))
    assert [row.completions[0].columns for row in labeled[:2]] == [{"desirable": 1.0}, {"desirable": 0.0}]


@pytest.mark.parametrize(
    ("line", "said"),
    [({"review": "a"}, "no text field 'text'"), ({"text": "a", "label": "good"}, "label is 'good'"),
     ({"text": "a"}, "label is None"), ({"text": 3, "label": 1}, "no text field 'text'")],
)  # fmt: skip
def test_a_wrong_record_is_refused(tmp_path, line, said):
    path = tmp_path / "imdb.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(UserError, match=said):
        list(IMDb(path=str(path), labeled=True).read("train"))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data in {SHARED}")
def test_real_reviews_are_split_by_the_names_of_their_files():
    source = IMDb(path=tuple(str(SHARED / name) for name in ("imdb.jsonl.gz", "imdb_test.jsonl.gz")), labeled=True)
    assert source.splits() == ("train", "test")
    with gzip.open(SHARED / "imdb_test.jsonl.gz", "rt") as file:
        first = json.loads(next(file))
    row = next(iter(source.read("test")))
    assert row.completions[0].columns["desirable"] == first["label"]
    assert row.completions[0].text.split() == first["text"].replace("<br />", " ").split()


def test_the_fingerprint_is_that_of_the_toy_version():
    assert IMDb().fingerprint() == IMDb().fingerprint() != IMDb(labeled=True).fingerprint()


def test_the_hub_gives_what_files_would(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = [{"text": "Good.<br />Very", "label": 1}, {"text": "Bad", "label": 0}]
    tables = {name: datasets.Dataset.from_list(rows[:count]) for name, count in (("train", 2), ("test", 1))}
    tables["unsupervised"] = datasets.Dataset.from_list([{"text": "?", "label": -1}])
    monkeypatch.setattr(imdb, "load_tables", {"stanfordnlp/imdb": tables, "no/test": {"train": tables["train"]}}.get)
    source = IMDb(hub="stanfordnlp/imdb", labeled=True)
    assert source.splits() == ("train", "test")
    assert [row.completions[0] for row in source.read("train")] == [
        Completion("Good. Very", columns={"desirable": 1.0}), Completion("Bad", columns={"desirable": 0.0}),
    ]  # fmt: skip
    assert [row.id for row in source.read("test")] == ["test:1"]
    assert source.fingerprint() == source.fingerprint() != IMDb(hub="stanfordnlp/imdb").fingerprint()
    with pytest.raises(UserError, match="no split 'test'; expected splits train and test"):
        IMDb(hub="no/test").fingerprint()
    with pytest.raises(ValueError, match="path and hub both name data"):
        IMDb(hub="stanfordnlp/imdb", path="imdb.jsonl")
