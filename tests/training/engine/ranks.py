"""The steps of every objective on one of several processes. Run by `of_two`, or as: python ranks.py FOLDER

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are torch's own. Every rank writes FOLDER/rank-N.pt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from jobs import bound_port, python
from steps import BATCH, Steps, Trees, build, every, random_rows, take

from alignzoo.data.trees import Tree
from alignzoo.interfaces.objective import Objective
from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.scoring.scorer import Scorer

STEPS = 2
TRAIN = {"micro_batch_tokens": 256, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "max_grad_norm": 1.0}
MARK = 60
"""A token that no row has but those that `marked` gave it."""


class Rare(Scorer):
    """Has a parameter that is used for marked rows alone, as a router uses an expert."""

    def __init__(self, model, layout) -> None:
        super().__init__(model, layout)
        model.rare = torch.nn.Parameter(torch.zeros(()))

    def forward(self, forest, *arguments):
        found = super().forward(forest, *arguments)
        if (forest.tokens == MARK).any():
            found["log_prob"] = found["log_prob"] + self.model.rare * (forest.target == MARK)
        return found


def marked() -> Trees:
    """Rows of which the first alone has the mark."""
    trees = random_rows("pair", BATCH)
    trees.tokens[trees.tokens == MARK] = 1
    first = trees[0]
    first.branches[0].tokens[-1] = MARK
    return Trees.build([Tree(first.id, first.prompt, first.branches), *list(trees)[1:]], trees.columns)


def all_steps(cache: Path) -> dict[str, Steps]:
    """Two steps of everything, on this process's share of the rows."""
    result = {}
    for name, objective in every().items():
        result[name] = _steps(objective, cache)
    result["few rows"] = _steps(every()["kto"], cache, batch_size=2)
    result["uneven"] = _steps(DPO(), cache, batch_size=7, micro_batch_tokens=1)
    result["rare"] = _steps(DPO(), cache, trees=marked(), scorer=Rare)
    return result


def _steps(objective: Objective, cache: Path, **options) -> Steps:
    return take(build(objective, cache, **TRAIN | options), STEPS)


def of_two(folder: Path, timeout: float = 300) -> list[dict[str, Steps]]:
    """What each of two processes has after its steps. They end by themselves, or are killed at the timeout."""
    listener, port = bound_port()
    shared = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }  # fmt: skip
    with listener:
        ranks = [
            python(__file__, folder, listener=None if int(rank) else listener, **shared, RANK=rank, LOCAL_RANK=rank)
            for rank in "01"
        ]
    for done in [rank.wait(timeout) for rank in ranks]:
        assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(2)]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    torch.save(all_steps(folder / f"cache-{rank}"), folder / f"rank-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
