"""A filter keeps the training rows with the lowest or highest values of a metric of the start."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.schema import FilterConfig
from alignzoo.training import row_filter
from alignzoo.training.row_filter import kept_rows

PLUGIN = '''
import torch
from alignzoo import Metric, hookimpl

class Similar(Metric):
    """How similar the hidden states of both completions are."""
    name = "similar"
    hidden_sum = True
    def values(self, pair, objective):
        w, l = pair.chosen.hidden_sum, pair.rejected.hidden_sum
        return ((l - w) * w).sum(1)

class Far(Metric):
    """A log-ratio."""
    name = "far"
    reference = "sequence"
    def values(self, pair, objective):
        return pair.margin

@hookimpl
def register_metrics():
    return [Similar, Far]
'''


def test_a_subset_of_trees_is_as_if_it_had_been_built():
    rng = np.random.default_rng(0)

    def branch() -> Branch:
        size = int(rng.integers(4, 9))
        return Branch.of(rng.integers(1, 50, size).tolist(), (0, 1), (3, size))

    items = [
        Tree(f"r{i}", rng.integers(1, 50, i % 3 + 1).astype(np.int32), (branch(),) * (i % 2 + 1)) for i in range(7)
    ]
    columns = {"score": rng.uniform(size=sum(len(item.branches) for item in items)).astype(np.float32)}
    trees = Trees.build(items, columns)
    rows = np.array([5, 0, 3, 6])
    got, want = trees.subset(rows), Trees.build([items[row] for row in rows])
    for name in ("tokens", "segments", "trees", "spans", "span_cuts", "keys"):
        assert np.array_equal(getattr(got, name), getattr(want, name)), name
    assert got.ids == ["r5", "r0", "r3", "r6"]
    first = trees.first
    own = np.concatenate([columns["score"][first[row] : first[row + 1]] for row in rows])
    assert np.array_equal(got.columns["score"], own)
    assert got.spans_fit()
    assert len(trees.subset(np.array([], dtype=np.int64))) == 0


def test_fewer_rows_than_a_batch_are_named_with_the_key(monkeypatch):
    monkeypatch.setattr(row_filter, "row_values", lambda *_: np.arange(6.0))
    wanted = FilterConfig.model_construct(metric=SimpleNamespace(name="m"), keep=0.5, side="lowest")
    recipe = SimpleNamespace(filter=wanted, train=SimpleNamespace(batch_size=4))
    job = SimpleNamespace(recipe=recipe, stopping=SimpleNamespace(), screen=SimpleNamespace(info=lambda line: None))
    with pytest.raises(UserError, match=r"filter\.keep: 3 training rows are left.*or train\.batch_size of at most 3"):
        row_filter.filtered(job, None, None)


@pytest.mark.parametrize(("side", "kept"), [("lowest", [0, 2, 3, 4]), ("highest", [1, 2, 3, 5])])
def test_the_wanted_share_of_the_rows_with_a_value_is_kept(side, kept):
    """Equal values are kept in the order of rows, and so are rows without one."""
    values = np.array([1.0, 9.0, np.nan, 5.0, 2.0, 8.0, 5.0])
    wanted = FilterConfig.model_construct(metric=None, keep=0.5, side=side)
    assert kept_rows(values, wanted).tolist() == kept


@pytest.mark.slow
def test_a_run_trains_on_the_rows_that_are_kept(again, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    recipe = {"extends": str(tmp_path.cwd() / "recipes/dpo_hh.yaml"), "plugins": ["mine.py"]}
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(recipe | {"filter": {"metric": "similar", "keep": 0.5}}))
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(recipe))
    result = again(tmp_path / "top.yaml", "train.max_steps=2")
    report = json.loads((result.folder / "data.json").read_text())
    whole = json.loads((again().folder / "data.json").read_text())["train"]
    assert (report["train"], report["filtered"]) == (whole // 2, whole - whole // 2)
    assert result.summary["reference"]["rows_cached"] > 0
    with_, without = (load_recipe(tmp_path / f"{name}.yaml", [], ["tests/smallest.yaml"]) for name in ("top", "all"))
    assert with_.fingerprint != without.fingerprint
    assert load_recipe(result.folder / "recipe.yaml").fingerprint == result.summary["fingerprint"]
    assert "filter" not in without.plain


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"metric": "far", "keep": 0.5}, "filter.metric: far reads a reference"),
        ({"metric": "similar", "keep": 1.5}, "filter.keep"),
        ({"metric": "simlar", "keep": 0.5}, "did you mean 'similar'?"),
        ({"metric": "similar"}, "filter.keep"),
    ],
)  # fmt: skip
def test_a_filter_that_can_not_be_is_an_error(tmp_path, section, said):
    (tmp_path / "mine.py").write_text(PLUGIN)
    base = {"extends": str(tmp_path.cwd() / "recipes/dpo_hh.yaml"), "plugins": ["mine.py"], "filter": section}
    (tmp_path / "top.yaml").write_text(yaml.safe_dump(base))
    with pytest.raises(UserError) as error:
        alignzoo.run(tmp_path / "top.yaml")
    assert said in str(error.value)
