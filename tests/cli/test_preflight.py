"""`validate` and `run` make the same checks before they read data: each mistake is one error in both."""

from __future__ import annotations

import pytest

from alignzoo.api.runs import run
from alignzoo.cli.validate import check
from alignzoo.core.errors import UserError
from alignzoo.models import adapters


@pytest.mark.parametrize(
    ("recipe", "override", "where"),
    [
        ("sft_hh", "model.path=/nowhere/model", "model.path: /nowhere/model"),
        ("dpo_hh", "model.lora.r=4", "model.lora"),
        ("sft_hh", "eval.judges={name: classifier, path: /nowhere/judge}", "/nowhere/judge"),
    ],
)
def test_validate_and_run_report_the_same(recipe, override, where, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda package: None)
    monkeypatch.setattr("alignzoo.data.row_reader.RowReader.used", None)  # nothing is read before
    found = []
    for command in (lambda: check(recipe, [override], [], False), lambda: run(recipe, [override])):
        with pytest.raises(UserError) as error:
            command()
        found.append(str(error.value))
    assert found[0] == found[1]
    assert where in found[0]
