"""Gradients of bfloat16 weights are summed over processes in float32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from jobs import CONTEXT, PATIENCE
from torch import nn

from alignzoo.training.fsdp import shard_or_move

COUNT = 3
PARTS = torch.tensor([[256.0, 1, 1], [1, 256, 1], [1, 1, 256]])
"""One gradient for each process and weight. In bfloat16 256 + 1 is 256; all three together are 258, which it has."""


def sum_shards(rank: int, folder: str, answers) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=COUNT)
    model = nn.Linear(COUNT, 1, bias=False, dtype=torch.bfloat16)
    scorer = SimpleNamespace(model=model, forward=lambda x: model(x))
    shard_or_move(scorer, SimpleNamespace(sharded=True, count=COUNT, device=torch.device("cpu")))
    scorer.forward(PARTS[rank].bfloat16()[None]).sum().backward()
    gradient = model.weight.grad
    answers.put((rank, str(gradient.dtype), gradient.full_tensor().float().flatten().tolist()))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_shards_are_summed_in_float32(tmp_path):
    answers = CONTEXT.Queue()
    processes = [CONTEXT.Process(target=sum_shards, args=(rank, str(tmp_path), answers)) for rank in range(COUNT)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=PATIENCE) for _ in processes)
    for process in processes:
        process.join(PATIENCE)
    assert found == [(rank, "torch.bfloat16", [258.0] * COUNT) for rank in range(COUNT)]
