"""The comparisons of recipes/paper: they plan on every kind of data, and keep the rows of each purpose apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from online_zoo import ONLINE
from zoo import ZOO

from alignzoo.compare.checks import check_plan
from alignzoo.compare.plan import Plan, make_plan
from alignzoo.compare.spec import read_comparison
from alignzoo.data.sources import hub, imdb
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.data_source import DataSource
from alignzoo.recipe.resolved import Resolved

pytestmark = pytest.mark.slow
PAPER = ROOT / "recipes" / "paper"
SHARED = ROOT.parent / "shared" / "data"
NAMED = ("bradley_terry", "reward_classifier", "unlikelihood", "ppo", "rloo", "grpo")
"""Objectives of plugins that the recipes name."""
CLASSES = [cls for cls in (*ZOO, *ONLINE.values()) if cls.name in NAMED]
HELD_APART = {"sentiment": {"classifier"}, "dialogue": {"judge", "judge_start"}, "tldr": {"judge", "judge_start"}}
"""Comparison -> the recipes of its judge, whose rows nothing else reads."""
PAIRS = [{"prompt": f"Post {i}", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(300)]
DIALOGUES = [
    {"chosen": f"\n\nHuman: q {i}\n\nAssistant: a", "rejected": f"\n\nHuman: q {i}\n\nAssistant: b"} for i in range(300)
]
REVIEWS = [{"text": f"Review {i} is long enough to be cut.", "label": i % 2} for i in range(300)]


@pytest.fixture
def tables(monkeypatch):
    """Datasets of the hub with the columns and splits of the real ones."""
    datasets = pytest.importorskip("datasets")
    rows = {
        "stanfordnlp/imdb": {"train": REVIEWS[:240], "test": REVIEWS[240:], "unsupervised": REVIEWS[:3]},
        "Anthropic/hh-rlhf": {"train": DIALOGUES[:240], "test": DIALOGUES[240:]},
        "CarperAI/openai_summarize_comparisons": {
            "train": PAIRS[:240], "test": PAIRS[:20], "valid1": PAIRS[200:], "valid2": PAIRS[:20],
        },
    }  # fmt: skip

    def load(path, subset=None, revision=None):
        return {name: datasets.Dataset.from_list(own) for name, own in rows[path].items()}

    monkeypatch.setattr(hub, "load_tables", load)
    monkeypatch.setattr(imdb, "load_tables", load)


def planned(name: str, *overlays: Path | str, overrides: tuple[str, ...] = ()) -> Plan:
    _, found = read_comparison(PAPER / f"{name}.yaml")
    plan = make_plan(found.model_copy(update={"overlays": tuple(map(str, overlays)), "overrides": overrides}), CLASSES)
    check_plan(plan)
    return plan


def everything(plan: Plan) -> Iterator[Resolved]:
    """Every run of a plan."""
    runs = plan.judge_runs.runs() if plan.judge_runs else ()
    waiting = [*(job.resolved for job in plan.jobs), *(run for run, _ in runs)]
    waiting += [run for run, _ in plan.best_of.picker.runs()] if plan.best_of else []
    while waiting:
        resolved = waiting.pop()
        yield resolved
        waiting += resolved.needs.values()


def check_apart(name: str, plan: Plan) -> None:
    """No label of the judge reaches a policy, and no row that is answered is trained on."""
    known: dict[str, tuple[set[str], set[str]]] = {}

    def groups(source: DataSource) -> tuple[set[str], set[str]]:
        """The groups that are trained on, and those that are held out."""
        if (key := source.model_dump_json()) not in known:
            rows = read_rows(source)
            known[key] = {row.group for row in rows.train}, {row.group for row in rows.held_out}
        return known[key]

    of_judges: set[str] = set()
    trained: set[str] = set()
    answered: set[str] = set()
    for resolved in everything(plan):
        if resolved.recipe.data.reads_draws:
            continue  # its rows are those of the run that draws
        own, held_out = groups(resolved.recipe.data)
        if resolved.recipe.name in HELD_APART[name]:
            of_judges |= own | held_out
            continue
        trained |= own
        answered |= held_out
        for source in resolved.recipe.eval.data.values():
            _, others = groups(source.model_copy(update={"held_out_fraction": 1.0}))
            answered |= others
    assert len(of_judges) > 5
    assert len(trained) > 5
    assert len(answered) > 5
    assert not of_judges & trained
    assert not of_judges & answered
    assert not trained & answered


def test_sentiment_on_the_embedded_reviews():
    plan = planned("sentiment")
    settings = {label: len({str(job.point) for job in plan.jobs if job.label == label}) for label in plan.labels}
    assert {settings.pop("sft"), settings.pop("preferred_ft")} == {1}
    assert set(settings.values()) == {4}
    check_apart("sentiment", plan)


def test_dialogue_on_the_embedded_dialogues():
    check_apart("dialogue", planned("dialogue"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data")
@pytest.mark.parametrize("name", ["sentiment", "dialogue", "tldr"])
def test_the_files_of_shared_data(name, tmp_path):
    if name == "tldr":
        for path in SHARED.glob("tldr_*"):
            (tmp_path / path.name).symlink_to(path)
        (tmp_path / "files.yaml").write_bytes((PAPER / "tldr" / "files.yaml").read_bytes())
        check_apart(name, planned(name, tmp_path / "files.yaml"))
        return
    pattern = "imdb*.jsonl.gz" if name == "sentiment" else "hh_helpful_base_*"
    paths = [str(path) for path in sorted(SHARED.glob(pattern))]
    check_apart(name, planned(name, overrides=(f"data.path={paths}",)))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("name", "overlay"),
    [
        ("sentiment", PAPER / "scale" / "gpt2-large.yaml"),
        ("dialogue", ROOT / "recipes" / "scale" / "pythia-2.8b.yaml"),
        ("tldr", PAPER / "scale" / "gpt-j.yaml"),
    ],
)
def test_the_papers_size(name, overlay):
    plan = planned(name, overlay)
    for resolved in everything(plan):
        assert resolved.first.recipe.model.origin, resolved.recipe.name
        if not resolved.recipe.draw:
            assert resolved.recipe.train.batch_size == 64
    check_apart(name, plan)


@pytest.mark.usefixtures("tables")
def test_an_overlay_with_other_data_keeps_the_rows_apart():
    """The name of the data source changes, and with it all of its own fields."""
    found = {
        one.recipe.name: one.recipe.data for one in everything(planned("dialogue", "recipes/scale/pythia-2.8b.yaml"))
    }
    assert found["judge"].name == "hub"
    assert (found["judge"].group_range, found["dpo"].group_range) == ((0, 0.3), (0.3, 1))
