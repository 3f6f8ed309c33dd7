"""A run that is killed while it draws, judges, scores, learns or saves ends with the bytes of one that was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from jobs import bytes_of
from rollout_runs import killed
from safetensors.numpy import load_file, save_file

from alignzoo.core.artifacts import write_manifest
from alignzoo.rollouts import attempts as attempts_module
from alignzoo.rollouts import drawn_by as drawn_by_module
from alignzoo.rollouts import folder as folder_module
from alignzoo.rollouts import held_out as held_out_module
from alignzoo.rollouts import source as source_module
from alignzoo.rollouts.forms import Form, all_fit, draws_fit
from alignzoo.training import checkpoint, step

KILLS = {
    "drawing": (drawn_by_module, "draw", 3),
    "judging": (attempts_module, "score", 4),
    "scoring": (source_module, "divergence", 2),
    "measuring held-out draws": (held_out_module, "divergence", 2),
    "writing a phase": (folder_module, "save_file", 4),
    "sealing a phase": (folder_module, "write_manifest", 5),
    "learning": (step, "gradient_by_row", 4),
    "saving": (checkpoint, "write_manifest", 1),
}
"""Module, function, and the call of it in which the process ends."""
OPTIONS = ("rollout.prompts=8", "rollout.epochs=1", "train.max_steps=6", "train.checkpoint_every=3")
"""Two updates a rollout, so that the first checkpoint is within one."""


def everything(folder: Path, last: str = "step-000006") -> list[bytes]:
    """The objective's last state, the run's bytes, and those of its rollouts with their names; what was damaged is set aside under a hidden name."""
    names = sorted(path.relative_to(folder) for path in (folder / "rollouts").rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    state = json.loads((folder / "checkpoints" / last / "about.json").read_text())["objective"]
    return [json.dumps(state).encode(), *bytes_of(folder)] + [
        b"%s: %s" % (str(name).encode(), (folder / name).read_bytes()) for name in names
    ]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(online):
    done = online("reinforce_pp", *OPTIONS)
    want = everything(done.folder)
    assert len(want) == 4 + 3 * 7  # three phases of two files, and the texts
    for module, name, at in KILLS.values():
        shutil.rmtree(done.folder)
        assert killed(module, name, at, lambda: online("reinforce_pp", *OPTIONS)), name
        assert not (done.folder / "summary.json").exists()
        assert everything(online("reinforce_pp", *OPTIONS).folder) == want, name


@pytest.mark.slow
def test_a_resumed_run_replays_the_rollout_it_is_in(online, monkeypatch):
    """From a checkpoint within a rollout nothing is drawn again, and a state is not updated twice."""
    done = online("reinforce", *OPTIONS)
    want = everything(done.folder)
    for path in (done.folder / "checkpoints").glob("step-000006"):
        shutil.rmtree(path)
    (done.folder / "summary.json").unlink()
    drawn = []
    draw = drawn_by_module.draw
    for module in (held_out_module, drawn_by_module):
        monkeypatch.setattr(module, "draw", lambda *a, **o: drawn.append(o["rollout"]) or draw(*a, **o))
    assert everything(online("reinforce", *OPTIONS).folder) == want
    assert set(drawn) <= {held_out_module.HELD_OUT}


@pytest.mark.slow
def test_a_damaged_rollout_is_drawn_again_unless_its_policy_is_gone(online):
    from alignzoo.core.errors import RunFailed

    done = online("reinforce", *OPTIONS)
    want = everything(done.folder)

    def damage(rollout: int) -> None:
        (done.folder / "summary.json").unlink()
        for path in (done.folder / "checkpoints").glob("step-000006"):
            shutil.rmtree(path)
        file = done.folder / f"rollouts/{rollout:06d}/drawn/draws.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    damage(2)  # of steps 5 and 6, after the checkpoint of step 3
    assert everything(online("reinforce", *OPTIONS).folder) == want
    damage(1)  # of steps 3 and 4
    with pytest.raises(RunFailed, match="step 4: its rollout, 1, is not on disk"):
        online("reinforce", *OPTIONS)


REFILL = (
    *OPTIONS, "rollout.rewards=[has_e]", "rollout.completions=2", "rollout.max_attempts=3", "rollout.epochs=2",
    "train.max_steps=8", "train.checkpoint_every=3",
)  # fmt: skip
REFILL_KILLS = {
    "drawing a second attempt": (drawn_by_module, "draw", 2),
    "sealing it": (folder_module, "write_manifest", 4),
    "learning": (step, "gradient_by_row", 4),
}


@pytest.mark.slow
def test_a_refilled_rollout_is_replayed(online):
    """Attempts are on disk, and those that a resumed run makes are the ones that a whole run makes."""
    done = online("dapo", *REFILL)

    def bytes_now(folder: Path) -> list[bytes]:
        return everything(folder, "step-000008")

    want = bytes_now(done.folder)
    assert (done.folder / "rollouts/000000/judged-1").exists()
    for module, name, at in REFILL_KILLS.values():
        shutil.rmtree(done.folder)
        assert killed(module, name, at, lambda: online("dapo", *REFILL)), name
        assert bytes_now(online("dapo", *REFILL).folder) == want, name


@pytest.mark.slow
def test_a_rollout_of_another_form_is_made_again(online):
    """Whoever can write there can write right digests too."""
    done = online("reinforce", *OPTIONS)
    want = everything(done.folder)
    (done.folder / "summary.json").unlink()
    shutil.rmtree(done.folder / "checkpoints/step-000006")
    for phase, change in {
        "drawn": lambda found: found | {"tokens": np.full_like(found["tokens"], 2**31 - 1)},
        "judged": lambda found: {"raw": np.full_like(found["raw"], np.inf)},
        "scored": lambda found: {name: value for name, value in found.items() if name != "advantage"},
    }.items():
        folder = done.folder / "rollouts/000002" / phase
        file = folder / folder_module.PHASES[phase]
        save_file(change(load_file(file)), file)
        write_manifest(folder, {"rollout": 2, "run": done.summary["fingerprint"]})
    assert everything(online("reinforce", *OPTIONS).folder) == want


def drawn(**changed):
    """Two draws of one and two tokens."""
    arrays = {
        "tokens": np.array([1, 2, 0], np.int32), "cuts": np.array([0, 1, 3]), "finished": np.array([0, 1], np.uint8),
        "log_prob": np.zeros(2),
    }  # fmt: skip
    return arrays | changed


@pytest.mark.parametrize(
    "arrays",
    [
        drawn(tokens=np.array([1, 3, 0], np.int32)),
        drawn(tokens=np.array([1, -1, 0], np.int32)),
        drawn(tokens=np.array([1, 2, 0])),
        drawn(cuts=np.array([0, 2, 1])),
        drawn(cuts=np.array([0, 0, 3])),
        drawn(cuts=np.array([0, 3])),
        drawn(finished=np.array([0, 2], np.uint8)),
        drawn(log_prob=np.zeros((2, 1))),
        drawn(more=np.zeros(2)),
        {name: value for name, value in drawn().items() if name != "finished"},
    ],
)
def test_the_form_of_draws(arrays):
    assert draws_fit(drawn(), {"": 2}, 2, 3)
    assert not draws_fit(drawn(), {"": 2}, 1, 3)
    assert not draws_fit(drawn(), {"": 2, "greedy ": 1}, 2, 3)
    assert not draws_fit(arrays, {"": 2}, 2, 3)


def test_the_form_of_an_array():
    form = Form(np.float64, (2, -1), infinite=False)
    assert form.fits(np.full((2, 3), np.nan))
    for other in (np.full((2, 3), np.inf), np.zeros((3, 2)), np.zeros(2), np.zeros((2, 3), np.float32)):
        assert not form.fits(other)
    assert all_fit({"raw": np.zeros((2, 0))}, {"raw": form})
    assert not all_fit({}, {"raw": form})
