"""No test sees the developer's plugins, caches or runs, and none reaches a network."""

# ALIGNZOO_TEST_ULP=1 moves every token log-prob that a model gives by one seeded float32 ulp: results that rounding
# must not decide stay what they are. ALIGNZOO_TEST_THREADS=2 computes with two threads.

import os

os.environ |= {
    "ALIGNZOO_PLUGINS": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    # Before torch is imported: sums then come in one order whatever the machine.
    "OMP_NUM_THREADS": os.environ.get("ALIGNZOO_TEST_THREADS", "1"),
    "TOKENIZERS_PARALLELISM": "false",
}

from pathlib import Path

import pytest
from checkout import ROOT
from hypothesis import HealthCheck, settings

os.fsync = lambda handle: None  # no test cuts the power, and every run would wait for the disk dozens of times
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")  # how long an example takes says how busy the machine is


@pytest.fixture(scope="session", autouse=True)
def checkout():
    """Recipes are named from the checkout's root, wherever pytest was started."""
    before = os.getcwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has a cache and a run folder root of its own."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def no_fork(monkeypatch):
    """Parsers run in this process, as where there is no fork: a fork of a test process costs 30 ms of processor time."""
    monkeypatch.delattr(os, "fork", raising=False)


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a process keeps, warnings given and secrets to redact, is a test's own, whichever tests ran before it."""
    from alignzoo.core import console, redaction

    monkeypatch.setattr(console, "_warned", set())
    monkeypatch.setattr(redaction, "_registered", set())


@pytest.fixture(autouse=True, scope="session")
def one_ulp():
    """Under ALIGNZOO_TEST_ULP=seed every model's log-probs move by one ulp each, in the fixtures of a module too."""
    seed = os.environ.get("ALIGNZOO_TEST_ULP")
    with pytest.MonkeyPatch.context() as patch:
        if seed:
            from ulps import move_by_one_ulp

            move_by_one_ulp(patch, int(seed), by_value=True)
        yield


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped, saying so, where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
