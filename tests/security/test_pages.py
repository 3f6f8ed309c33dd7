"""report.html obeys no word of the data, and loads nothing. (compare's page: tests/compare/test_page.py.)"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

import alignzoo
from alignzoo.report.run_page import write_report

CANARY = (
    "</pre></style></title><script>alert('canary')</script><img src=http://example.com/x onerror=alert(1)>\"' onload='x"
)


KEPT = ("eval", "train", "system", "user", "assistant", "tool", "text")
"""Texts of a run folder that are checked when they are read: kinds of lines, and roles."""


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]


def harmless(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base", "audio", "video"} & set(
        reader.tags
    )
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    outside = [
        (n, v)
        for n, v in reader.attributes
        if n in ("src", "href", "xlink:href", "action", "data") and not v.startswith("#")
    ]
    assert not outside
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


@pytest.fixture
def folder(tmp_path):
    """A finished run on data full of markup, every text of its records replaced by it too."""
    rows = [
        {
            "id": f"{CANARY} {n}",
            "prompt": f"{CANARY} p{n}",
            "chosen": f"{CANARY} good {n}",
            "rejected": f"{CANARY} bad {n}",
        }
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = f"data={{name: files, path: {tmp_path / 'rows.jsonl'}, format: {{name: records, id: id}}}}"
    return alignzoo.run(
        "sft_hh", [data, "train.max_steps=1", "tokens.max_length=2048"], ["recipes/scale/smallest.yaml"]
    ).folder


@pytest.mark.slow
def test_data_is_text(folder):
    page = (folder / "report.html").read_text()
    harmless(page)
    assert "&lt;script&gt;alert(" in page


@pytest.mark.slow
def test_so_is_every_word_of_a_run_folder_that_somebody_sent(folder):
    """Each text in the folder's records, keys and values, becomes markup."""

    def poison(value):
        if isinstance(value, dict):
            poisoned = {key: poison(one) for key, one in value.items()}
            return poisoned | ({CANARY: next(iter(poisoned.values()))} if poisoned else {})
        if isinstance(value, list):
            return [poison(one) for one in value]
        return CANARY if isinstance(value, str) and value not in KEPT else value

    for name in ("summary.json", "data.json"):
        (folder / name).write_text(json.dumps(poison(json.loads((folder / name).read_text()))))
    for name in ("samples.jsonl", "metrics.jsonl", "rows.jsonl", "held_out.jsonl"):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        (folder / name).write_text("".join(json.dumps(poison(line)) + "\n" for line in lines))
    (folder / "recipe.yaml").write_text(f"name: {CANARY}")
    page = write_report(folder).read_text()
    harmless(page)
    assert page.count("&lt;script&gt;") > 5
