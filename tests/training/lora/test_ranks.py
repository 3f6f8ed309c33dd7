"""Adapters on several processes: the same run, each process with a whole copy of the base."""

from __future__ import annotations

import numpy as np
import pytest
from jobs import DPO, FSDP2, run_folder, start
from safetensors.numpy import load_file


@pytest.mark.slow
def test_two_processes_train_the_adapters_of_one(tmp_path, start_folder):
    """A chain of two runs of adapters: the policy of the first is merged by one of the processes."""
    overlay = tmp_path / "lora.yaml"
    overlay.write_text(f"model: {{path: {start_folder}, lora: {{r: 4}}}}\n")
    jobs = [start(tmp_path / str(n), [*DPO, "--with", overlay, "train.max_steps=4"], n) for n in (1, 2)]
    assert [job.wait() for job in jobs] == [[0], [0, 0]], [job.said() for job in jobs]
    for name in ("sft_hh", "dpo_hh"):
        one, two = (
            load_file(run_folder(tmp_path / n, name) / "policy" / "adapter_model.safetensors") for n in ("1", "2")
        )
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert np.abs(two[key] - value).max() <= 2e-4 * np.abs(value).max()  # B has only begun to leave 0


@pytest.mark.slow
def test_shards_are_rejected(tmp_path, start_folder):
    words = [f"model.path={start_folder}", "model.lora.r=4"]
    job = start(tmp_path, [*DPO[:1], "recipes/sft_hh.yaml", *DPO[2:], *words], 2, [FSDP2])
    assert job.wait() == [2, 2]
    assert len(job.errors()) == 1
    assert "model.lora: adapters can't be added" in job.errors()[0]
