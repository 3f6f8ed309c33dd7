"""Online runs at their smallest: a judge that any text has a score from, and an SFT run to start from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkout import ROOT
from jobs import SMALLEST as SMALL_JOB
from jobs import run_folder, start
from rollout_runs import SMALL

import alignzoo

SMALLEST = "tests/smallest.yaml"
JUDGE = '''
"""A judge that likes vowels, and says how often it was asked."""
import os
from alignzoo import Judge, hookimpl


class Vowels(Judge):
    """Share of vowels among the letters of a reply."""

    name = "vowels"

    def scores(self, prompts, replies):
        if os.environ.get("VOWELS") == "fail":
            raise ValueError("no vowels today")
        return [sum(c in "aeiou" for c in reply) / max(1, len(reply)) for reply in replies]


class HasE(Judge):
    """1 for a reply with an e, else 0: many prompts have draws of equal rewards."""

    name = "has_e"

    def scores(self, prompts, replies):
        return [float("e" in reply) for reply in replies]


@hookimpl
def register_judges():
    return [Vowels, HasE]
'''


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """A folder with the smallest SFT run and its cache."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        alignzoo.run("recipes/sft_hh.yaml", ["model.config.hidden_size=32"], [SMALLEST])
    return root


@pytest.fixture(scope="package")
def plugins(tmp_path_factory) -> list[str]:
    """Plugin files with the judge, and with the objectives on groups and of the zoo."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "vowels.py").write_text(JUDGE)
    for name in ("online", "zoo"):
        (folder / f"{name}_package.py").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT / 'plugins' / f'alignzoo-{name}')!r})\n"
            f"from alignzoo_{name} import register_objectives\n"
        )
    return sorted(map(str, folder.glob("*.py")))


@pytest.fixture
def home(trained, tmp_path, monkeypatch) -> Path:
    """This test's own copy of the SFT run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def online(home, plugins):
    """`online("grpo", "train.max_steps=1")` runs an objective on draws; `online.words("grpo")` are its overrides."""

    def words(objective: str, *overrides: str) -> list[str]:
        return [
            "train.batch_size=4", "train.max_steps=4", "train.checkpoint_every=2", "eval.every=2", "eval.replies.num_prompts=1",
            "rollout.completions=4", "rollout.max_new_tokens=8", "rollout.rewards=[vowels]", "rollout.held_out_prompts=4",
            "rollout.kl_rows=4", f"plugins={json.dumps(plugins)}", f"objective={objective}",
            *overrides,
        ]  # fmt: skip

    def run(objective: str = "dpo", *overrides: str, recipe: str = "recipes/online/dpo_hh.yaml", **options):
        return alignzoo.run(recipe, words(objective, *overrides), [SMALLEST], **options)

    run.words = words
    return run


@pytest.fixture
def online_on(trained, plugins, tmp_path):
    """`online_on(2, "grpo")` runs an objective on draws by two processes, and returns the run's folder."""

    def run(ranks: int, objective: str, *overrides: str, home: str = "", code: int = 0, **environment: str) -> Path:
        folder = tmp_path / (home or f"{objective}-{ranks}")
        if not folder.exists():
            shutil.copytree(trained, folder)
        words = ["run", "recipes/online/dpo_hh.yaml", *SMALL_JOB, *SMALL, f"plugins={json.dumps(plugins)}"]
        job = start(folder, [*words, f"objective={objective}", *overrides], ranks, [environment])
        assert set(job.wait()) == {code}, job.said()
        return run_folder(folder) if code == 0 else folder

    return run
