"""More processes change the speed of a run and not its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from jobs import DPO, FSDP2, run_folder, start
from safetensors.numpy import load_file

from alignzoo.reference.cache import ReferenceCache
from alignzoo.training.records import read_lines


def weights(folder: Path, name: str = "dpo_hh") -> dict[str, np.ndarray]:
    return load_file(run_folder(folder, name) / "policy" / "model.safetensors")


def same(got: Path, want: Path, name: str = "dpo_hh") -> None:
    """Weights, metrics, evaluations and samples of two runs are the same within float rounding."""
    ours, theirs = weights(got, name), weights(want, name)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert np.abs(ours[key] - value).max() <= 2e-5 * np.abs(value).max()
    lines, wanted = (read_lines(run_folder(folder, name) / "metrics.jsonl") for folder in (got, want))
    assert len(lines) == len(wanted)
    for line, other in zip(lines, wanted, strict=True):
        assert line.keys() == other.keys()
        assert {k: v for k, v in line.items() if k != "kind"} == pytest.approx(
            {k: v for k, v in other.items() if k != "kind"}, rel=1e-3, abs=1e-5
        )


def bytes_of(folder: Path) -> list[bytes]:
    names = ("policy/model.safetensors", "metrics.jsonl", "samples.jsonl")
    return [(run_folder(folder) / name).read_bytes() for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_run_on_several_processes_is_the_run_on_one(done, ranks):
    same(done(ranks), done(1))
    same(done(ranks), done(1), "sft_hh")
    summary, alone = (json.loads((run_folder(done(n)) / "summary.json").read_text()) for n in (ranks, 1))
    assert (summary["processes"], alone["processes"]) == (ranks, 1)
    assert summary["reference"] == alone["reference"]
    assert summary["fingerprint"] == alone["fingerprint"]


@pytest.mark.slow
def test_each_process_scores_its_part_of_the_reference(done):
    folders = {n: list((done(n) / "cache" / "reference").iterdir()) for n in (1, 4)}
    caches = {n: ReferenceCache(folder) for n, (folder,) in folders.items()}
    shards = {n: list(folder.glob("*.safetensors")) for n, (folder,) in folders.items()}
    assert len(shards[4]) == 4 * len(shards[1])
    assert len(caches[4]) == len(caches[1])


@pytest.mark.slow
def test_the_same_again_on_as_many_processes_gives_the_same_bytes(done, copy):
    again = copy(done(2))
    want = bytes_of(again)
    job = start(again, [*DPO, "--fresh"], 2)
    assert job.wait() == [0, 0], job.said()
    assert bytes_of(again) == want


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(done, copy, before, after):
    folder = copy(done(before))
    (run_folder(folder) / "summary.json").unlink()
    job = start(folder, DPO, after)
    assert job.wait() == [0] * after, job.said()
    assert "resuming after step 4" in job.said()[0]
    same(folder, done(1))


@pytest.mark.slow
def test_shards_change_nothing_and_can_be_left_and_taken_up_again(done, copy):
    same(done(2, **FSDP2), done(1))
    folder = copy(done(2, **FSDP2))
    (run_folder(folder) / "summary.json").unlink()
    job = start(folder, DPO)  # on one process
    assert job.wait() == [0], job.said()
    assert "resuming after step 4" in job.said()[0]
    same(folder, done(1))
    (run_folder(folder) / "summary.json").unlink()
    job = start(folder, DPO, 2, [FSDP2])
    assert job.wait() == [0, 0], job.said()
    assert "resuming after step 4" in job.said()[0]
    same(folder, done(1))


@pytest.mark.slow
def test_two_hosts_share_the_run_folder_and_may_have_caches_of_their_own(done, copy, tmp_path):
    """Two processes with their own rank variables, each the first on its host, on loopback."""
    hosts = [
        {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "ALIGNZOO_CACHE": str(tmp_path / f"cache of host {i}")}
        for i in range(2)
    ]  # fmt: skip
    folder = tmp_path / "hosts"
    job = start(folder, DPO, 2, hosts)
    assert job.wait() == [0, 0], job.said()
    same(folder, done(1))
    for i in range(2):
        (scored,) = (tmp_path / f"cache of host {i}" / "reference").iterdir()
        assert len(ReferenceCache(scored)) == 2 * 160  # each its own, once


@pytest.mark.slow
def test_run_folders_that_are_not_shared_are_told_once(tmp_path):
    hosts = [{"ALIGNZOO_RUNS": str(tmp_path / f"host {i}")} for i in range(2)]
    job = start(tmp_path, ["run", "recipes/sft_hh.yaml", *DPO[2:]], 2, hosts)
    assert job.wait() == [2, 2]
    (line,) = job.errors()
    assert "not every process sees this folder; expected a file system that all hosts share" in line


@pytest.mark.slow
def test_scores_are_shared_out_and_written_once(done, copy, tmp_path):
    lines, folder = {}, copy(done(1))
    for ranks in (1, 2):
        shutil.rmtree(folder / "cache" / "reference")
        job = start(folder, ["score", *DPO[1:], "-o", tmp_path / f"{ranks}.jsonl", "--split", "held_out"], ranks)
        assert job.wait() == [0] * ranks, job.said()
        lines[ranks] = read_lines(tmp_path / f"{ranks}.jsonl")
    assert len(lines[1]) == len(lines[2]) == 32
    for one, two in zip(lines[1], lines[2], strict=True):
        assert one["id"] == two["id"]
        for who in ("policy_log_prob", "reference_log_prob"):
            assert one["chosen"][who] == pytest.approx(two["chosen"][who], rel=1e-5)
