"""An executor of an installed package, used by its name."""

from __future__ import annotations

import sys

import pytest

from alignzoo.compare import pool
from alignzoo.compare.plan import make_plan
from alignzoo.compare.spec import Comparison
from alignzoo.core.errors import UserError
from alignzoo.interfaces.executor import Slot
from alignzoo.recipe.parse import Node, Origin
from alignzoo.registry.lookup import Registry

CODE = '''
from alignzoo import Executor, Field, UserError, hookimpl

class Elsewhere(Executor):
    """Workers that another program starts."""
    name = "elsewhere"
    program: str = Field("env", description="the program")
    def ready(self, slots):
        if len(slots) > 4:
            raise UserError(f"{len(slots)} is too many", where="jobs")
    def command(self, worker, slot):
        return [self.program, f"SLOT={slot.number}", *worker]

@hookimpl
def register_executors():
    return [Elsewhere]
'''
HERE = Node({}, Origin("here"))


def plan(**fields):
    return make_plan(Comparison(recipes=("dpo_hh",), overlays=("tests/smallest.yaml",), seeds=1, **fields))


@pytest.fixture
def elsewhere(install, monkeypatch):
    install("alignzoo-elsewhere", CODE)
    known = Registry()
    monkeypatch.setattr(pool, "registry", lambda: known)
    return known


def test_a_comparison_names_it_and_sets_its_fields(elsewhere):
    given = {"name": "elsewhere", "program": "srun"}
    executor = pool.executor_of(plan(executor=given, jobs=2), HERE)
    worker = [sys.executable, "-P", "-m", "alignzoo.compare.worker"]
    assert executor.command(worker, Slot(1, 2)) == ["srun", "SLOT=1", *worker]
    assert type(executor) is elsewhere.known("executor")["elsewhere"]
    assert elsewhere.plugins()[0].offers == {"executor": ["elsewhere"]}


def test_its_mistakes_are_reported(elsewhere):
    with pytest.raises(UserError, match=r"executor.elsewhere\.\w*|no key 'programm'|did you mean 'program'"):
        pool.executor_of(plan(executor={"name": "elsewhere", "programm": "srun"}), HERE)
    with pytest.raises(UserError, match=r"^jobs: 5 is too many$"):
        pool.executor_of(plan(executor="elsewhere", jobs=5), HERE)
    with pytest.raises(UserError, match=r"no executor is called 'elsewere'.*did you mean 'elsewhere'\?"):
        pool.executor_of(plan(executor="elsewere"), HERE)


@pytest.mark.slow
def test_a_worker_runs_under_its_command(elsewhere):
    """The program of the command starts the real worker, which answers a task that it can't do with the reason."""
    executor = pool.executor_of(plan(executor="elsewhere"), HERE)
    task = {
        "recipe": {"recipe": "no_such_recipe"}, "fingerprint": "", "measured": True, "folder": "/", "variables": {},
        "comparison": {"recipes": ["no_such_recipe"]}, "logs": False, "best_of": False,
    }  # fmt: skip
    answer = executor.run(task, Slot(0, 1), lambda message: None)
    executor.close()
    assert answer["reason"].startswith("no_such_recipe: no such recipe")
