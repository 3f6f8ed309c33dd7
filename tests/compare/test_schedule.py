"""The order of runs, and several at a time with workers that do no work: nothing is trained here."""

from __future__ import annotations

import threading
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from pydantic import PrivateAttr

from alignzoo import Executor, Objective, UserError, WorkerLost
from alignzoo.compare import schedule as schedule_module
from alignzoo.compare.executors.local import check_gpus, share, visible_gpus
from alignzoo.compare.one_run import RunOutcome
from alignzoo.compare.plan import make_plan
from alignzoo.compare.pool import executor_of
from alignzoo.compare.results import read_results
from alignzoo.compare.runner import compare_plan
from alignzoo.compare.schedule import Schedule, Unit
from alignzoo.compare.spec import Comparison
from alignzoo.core.console import Screen
from alignzoo.interfaces.executor import Slot
from alignzoo.recipe.parse import Node, Origin

HERE = Node({}, Origin("here"))


def unit(name: str, *needs: str, listed: bool = True) -> Unit:
    recipe = SimpleNamespace(name=name)
    return Unit(SimpleNamespace(resolved=SimpleNamespace(fingerprint=name, recipe=recipe)), frozenset(needs), listed)


@pytest.fixture
def scheduled(monkeypatch):
    """A schedule of units that are given in place of jobs."""
    monkeypatch.setattr(schedule_module, "units_of", lambda units, *judges: list(units))
    return Schedule()


def names(schedule: Schedule) -> list[str]:
    """What can begin now, in order."""
    found = []
    while (n := schedule.take()) is not None:
        found.append(schedule.units[n].fingerprint)
    return found


def test_what_others_need_comes_first_and_the_rest_in_the_plans_order(scheduled):
    scheduled.add([unit("a"), unit("b", "start"), unit("c", "start"), unit("d", "two"), unit("start"), unit("two")])
    assert names(scheduled) == ["start", "two", "a"]
    assert scheduled.end(4, "") == []
    assert names(scheduled) == ["b", "c"]
    scheduled.end(5, "")
    assert names(scheduled) == ["d"]
    assert scheduled.waiting == 0


def test_a_chain_begins_at_its_bottom(scheduled):
    scheduled.add([unit("top", "bottom", "middle"), unit("middle", "bottom"), unit("bottom")])
    for n, name in ((2, "bottom"), (1, "middle"), (0, "top")):
        assert names(scheduled) == [name]
        scheduled.end(n, "")


def test_what_needs_a_failed_run_fails_with_it_and_nothing_else(scheduled):
    scheduled.add([unit("bottom"), unit("middle", "bottom"), unit("top", "bottom", "middle"), unit("other")])
    assert names(scheduled) == ["bottom", "other"]
    reason = "bottom, which it needs, failed: it is dark"
    assert scheduled.end(0, "it is dark") == [(1, reason), (2, reason)]
    assert scheduled.end(3, "it is cold") == []
    assert names(scheduled) == []
    scheduled.add([unit("late", "bottom")])
    assert names(scheduled) == []


def test_later_jobs_add_only_what_is_not_there(scheduled):
    scheduled.add([unit("start", listed=False), unit("a", "start")])
    assert [one.fingerprint for one in scheduled.add([unit("start", listed=False), unit("b", "start")])] == ["b"]
    assert names(scheduled) == ["start"]
    scheduled.end(0, "")
    assert names(scheduled) == ["a", "b"]


def test_the_run_of_the_judge_of_best_of_n_comes_before_the_rows_that_it_picks_for(tmp_path):
    """The judge's run starts from a row of the table, which can't wait for it."""
    (tmp_path / "rm.yaml").write_text(
        "extends: dpo_hh\nplugins: [rm.py]\nobjective: mine_rm\neval: {replies: {num_prompts: 0}}\n"
    )
    (tmp_path / "rm.py").write_text(
        'from alignzoo import Objective, hookimpl\n\nclass Rm(Objective):\n    """A reward model."""\n\n'
        "    name = 'mine_rm'\n    head = 'scalar'\n    reference = 'none'\n\n    def loss(self, pair):\n"
        "        return -(pair.chosen.scalar - pair.rejected.scalar)\n\n"
        "@hookimpl\ndef register_objectives():\n    return [Rm]\n"
    )
    judge = {"name": "reward_model", "from": str(tmp_path / "rm.yaml")}
    plan = make_plan(
        Comparison(
            recipes=("dpo_hh", "sft_hh"), overlays=("tests/smallest.yaml",), seeds=2, best_of=(1, 2), best_of_judge=judge,
            best_of_rows=("sft_hh", "dpo_hh"),
        )
    )  # fmt: skip
    found = Schedule(plan.best_of)
    found.add(plan.jobs)
    order = []
    while (n := found.take()) is not None:
        order.append(found.units[n].job.resolved.recipe.name)
        found.end(n, "")
    assert order == ["sft_hh", "rm", "dpo_hh", "dpo_hh"]
    assert [one.measured for one in found.units if not one.listed] == [False]
    assert found.waiting == 0


def test_cores_are_shared_out_and_a_users_number_of_threads_stays():
    slot = Slot(1, 3)
    assert share(slot, 8, None, {}) == {"OMP_NUM_THREADS": "2"}
    assert share(slot, 2, None, {}) == {"OMP_NUM_THREADS": "1"}
    assert share(slot, 8, None, {"OMP_NUM_THREADS": "5"}) == {"OMP_NUM_THREADS": "5"}


def test_each_worker_has_one_of_the_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-1a")
    assert visible_gpus() == ["3", "GPU-1a"]
    shares = [share(Slot(n, 2), 8, visible_gpus(), {}) for n in range(2)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares] == ["3", "GPU-1a"]
    check_gpus(2, visible_gpus())
    with pytest.raises(
        UserError, match=r"^jobs: 3 runs at a time need 3 GPUs, and this process may use 2; expected at"
    ):
        check_gpus(3, visible_gpus())


class Pretends(Executor):
    """Answers at once, and loses the workers of the runs that it is told to."""

    name = "pretends"

    _loses: dict[str, int] = PrivateAttr(default_factory=dict)
    """Override in a task -> how often its worker is lost."""
    _begun: list = PrivateAttr(default_factory=list)
    _barrier: object = PrivateAttr(None)

    def start(self, slot):
        self._begun.append(slot)

    def run(self, task, slot, report):
        if self._barrier and task["recipe"]["overrides"] and not task["recipe"]["needs"]:
            self._barrier.wait(60)  # passes only with two at once
        report({"state": "working"})
        for word in task["recipe"]["overrides"]:
            if self._loses.get(word):
                self._loses[word] -= 1
                raise WorkerLost("was ended by SIGKILL")
        return asdict(RunOutcome(words="done", measured="/somewhere", run={"steps": 1}))


def plan_of(*recipes: str, classes=(), **fields):
    return make_plan(Comparison(recipes=recipes, overlays=("tests/smallest.yaml",), seeds=1, **fields), classes)


@pytest.fixture(scope="module")
def three():
    """Three runs from one start, which is no row, two at a time."""
    return plan_of("dpo_hh", grid={"objective.beta": (0.1, 0.3, 0.5)}, jobs=2)


def states(folder) -> list[tuple[str, str]]:
    return [(record.state, record.reason) for record in read_results(folder)[1]]


def test_runs_go_on_side_by_side_after_their_start(three, capsys):
    executor = Pretends()
    executor._loses["objective.beta=0.5"] = 1
    folder = compare_plan(three, [], Screen(), executor=executor)
    assert states(folder) == [("done", "")] * 3
    assert [slot.number for slot in executor._begun] == [0, 1]
    about, records = read_results(folder)
    assert about["machine"].endswith("; 2 runs at a time")
    assert about["counts"]["runs"] == 4
    assert {record.label for record in records} == {"dpo_hh"}
    said = capsys.readouterr().err
    assert "dpo_hh beta=0.5 seed 0: its worker was ended by SIGKILL; it is taken up again" in said
    assert "sft_hh-" in said.splitlines()[0]  # the start is worked on first, under the name of its folder


def test_two_are_at_work_at_the_same_time():
    executor, plan = Pretends(), plan_of("dpo_hh", grid={"objective.beta": (0.1, 0.5)}, jobs=2)
    executor._barrier = threading.Barrier(2)
    assert states(compare_plan(plan, [], Screen(quiet=True), executor=executor)) == [("done", "")] * 2


def test_a_worker_that_always_dies_is_a_failed_row_and_the_others_go_on(three):
    executor = Pretends()
    executor._loses["objective.beta=0.3"] = 100
    found = states(compare_plan(three, [], Screen(quiet=True), executor=executor))
    assert found == [("done", ""), ("failed", "its worker was ended by SIGKILL, for the second time"), ("done", "")]
    assert executor._loses["objective.beta=0.3"] == 98  # taken up again once


class NoStart(Pretends):
    """The start of the others fails."""

    def run(self, task, slot, report):
        if task["recipe"]["needs"]:
            return asdict(RunOutcome.failed("it is dark"))
        return super().run(task, slot, report)


def test_runs_whose_start_failed_are_rows_that_say_so(three):
    reason = "sft_hh, which it needs, failed: it is dark"
    assert states(compare_plan(three, [], Screen(quiet=True), executor=NoStart())) == [("failed", reason)] * 3


class CantStart(Pretends):
    """No worker can be started."""

    def run(self, task, slot, report):
        raise UserError("there is no cluster", where="executor")


def test_an_executor_that_cant_start_ends_the_comparison(three):
    executor = CantStart()
    with pytest.raises(UserError, match="executor: there is no cluster"):
        compare_plan(three, [], Screen(quiet=True), executor=executor)
    assert executor._closed


class Mine(Objective):
    """An objective of this process."""

    name = "mine"

    def loss(self, pair):
        return -pair.margin


def test_bad_executors_are_reported():
    with pytest.raises(UserError, match=r"no executor is called 'locl'; did you mean 'local'\?"):
        executor_of(plan_of("dpo_hh", executor="locl"), HERE)
    with pytest.raises(UserError, match=r"^jobs: Mine is defined in this process, and workers are other processes"):
        executor_of(plan_of("dpo_hh", overrides=("objective=mine",), classes=[Mine], jobs=2), HERE)
    assert executor_of(plan_of("dpo_hh"), HERE) is None
    named = executor_of(plan_of("dpo_hh", executor={"name": "local"}), HERE)
    assert named is not None
    assert named.name == "local"


def test_jobs_and_executor_are_no_part_of_the_folders_name(three):
    assert plan_of("dpo_hh", grid={"objective.beta": (0.1, 0.3, 0.5)}).fingerprint == three.fingerprint
