"""Judges of a comparison that are runs: trained first, once, in whatever order the rows come."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from fake_plugins import REWARD_MODEL
from tiny_runs import tiny_recipe

from alignzoo.compare.plan import make_plan
from alignzoo.compare.results import read_results
from alignzoo.compare.runner import compare_plan
from alignzoo.compare.schedule import Schedule
from alignzoo.compare.spec import Comparison, read_comparison
from alignzoo.compare.worker import answer_to, task_of
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.report.comparison.write import write_all

pytestmark = pytest.mark.usefixtures("no_fork")
QUIET = Screen(quiet=True)


@pytest.fixture
def recipes(tmp_path):
    """SFT, DPO from it, and a reward model from it, which judges both."""
    sft = tiny_recipe(tmp_path, "sft", prompts=24, objective="sft")
    (tmp_path / "ranks.py").write_text(REWARD_MODEL)
    node = yaml.safe_load(sft.read_text()) | {"model": {"from": "sft.yaml"}}
    for name, objective in (("dpo", "dpo"), ("rm", "ranks")):
        plugins = {"plugins": [str(tmp_path / "ranks.py")]} if name == "rm" else {}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(node | {"objective": objective} | plugins))
    return tmp_path


def comparison(folder, **more):
    """The reward model judges, and its own run starts from the first row."""
    text = {
        "recipes": ["sft.yaml", "dpo.yaml"], "seeds": 1, "samples": {"prompts": 3, "tokens": 6}, "name": "judged",
        "judges": [{"name": "reward_model", "from": "rm.yaml"}],
    }  # fmt: skip
    (folder / "judged.yaml").write_text(yaml.safe_dump(text | more))
    return read_comparison(folder / "judged.yaml")[1]


def test_the_run_of_a_judge_comes_first_and_its_scores_are_in_the_table(recipes, monkeypatch):
    monkeypatch.chdir("/")  # the judge's recipe is beside the comparison
    plan = make_plan(comparison(recipes))
    folder = compare_plan(plan, [], QUIET)
    (rm,) = (recipes / "runs").glob("rm-*")
    judge = Classifier(path=str(rm / "policy"))
    table = write_all(folder)
    assert [row.problem for row in table.rows] == ["", ""]
    for record in read_results(folder)[1]:
        lines = record.figures.samples
        scores = judge.scores([line["prompt"] for line in lines], [line["reply"].strip() for line in lines])
        found = [line["judges"]["reward_model"]["reward"] for line in lines]
        assert found == pytest.approx(scores, abs=1e-5)
        assert len(set(found)) > 1
    assert compare_plan(plan, [], QUIET) == folder


def test_another_reward_model_gives_other_verdicts(recipes):
    def scores():
        folder = compare_plan(make_plan(comparison(recipes, recipes=["sft.yaml"])), [], QUIET)
        return [line["judges"]["reward_model"]["reward"] for line in read_results(folder)[1][0].figures.samples]

    first = scores()
    path = recipes / "rm.yaml"
    path.write_text(path.read_text().replace("0.02", "0.2"))
    assert not np.allclose(scores(), first)
    assert len(list((recipes / "runs").glob("rm-*"))) == 2


def test_the_first_row_may_be_what_the_judge_starts_from_and_others_wait_for_it(recipes):
    plan = make_plan(comparison(recipes, best_of=[1, 2], best_of_judge={"name": "reward_model", "from": "rm.yaml"}))
    schedule = Schedule(plan.best_of, plan.judge_runs)
    schedule.add(plan.jobs)
    order = []
    while (n := schedule.take()) is not None:
        order.append(schedule.units[n].job.resolved.recipe.name)
        schedule.end(n, "")
    assert order == ["sft", "rm", "dpo"]


def test_a_worker_judges_alike(recipes):
    plan = make_plan(comparison(recipes))
    folder = compare_plan(plan, [], QUIET)
    schedule = Schedule(plan.best_of, plan.judge_runs)
    schedule.add(plan.jobs)
    (unit,) = (one for one in schedule.units if one.job.label == "dpo")
    answer = answer_to(task_of(unit, plan.comparison, logs=False), lambda message: None)
    assert answer["reason"] == ""
    record = next(one for one in read_results(folder)[1] if one.label == "dpo")
    assert [str(path) for path in answer["verdicts"]] == [str(path) for path in record.figures.verdict_paths]


def test_a_mistake_in_a_judge_names_its_key(recipes):
    for judge, words in (
        ({"name": "reward_model", "from": "rn.yaml"}, "rn.yaml"),
        ({"name": "reward_model", "from": str(recipes / "dpo.yaml")}, "trains a language model"),
    ):
        with pytest.raises(UserError) as error:
            make_plan(comparison(recipes, judges=[judge]))
        assert words in str(error.value)
        assert "judges" in str(error.value)


@pytest.mark.parametrize("judge", ["toy", {"name": "length", "unit": "words"}])
@pytest.mark.parametrize("name", ["sft", "rm"])
def test_other_judges_need_no_recipe(recipes, judge, name):
    """A reward model writes no replies, and its recipe would have no judge."""
    assert make_plan(Comparison(recipes=(str(recipes / f"{name}.yaml"),), judges=(judge,))).judge_runs is None
