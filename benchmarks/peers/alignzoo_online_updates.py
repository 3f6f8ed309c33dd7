"""alignzoo's side of the online agreement: runs recipes, and keeps what was drawn and the gradient of each update.

Run as: python alignzoo_online_updates.py WORKLOAD.json OUT.json
`recipes` of the workload has a recipe's path by case. Gradients go into OUT's folder, one file an update.
"""

import json
import sys
from pathlib import Path

import torch
from gradients import Gradients

import alignzoo
from alignzoo.core.arrays import mmap_safetensors
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.folder import PHASES
from alignzoo.training.records import read_lines
from alignzoo.training.step import Engine


def rollouts(folder: Path) -> list[dict]:
    """Return the draws of each rollout: token ids and raw reward, all of the first prompt and then of the second etc."""
    found = []
    for one in sorted((folder / "rollouts").iterdir()):
        draws = Draws.from_arrays(mmap_safetensors(one / "drawn" / PHASES["drawn"]))
        raw = mmap_safetensors(one / "judged" / PHASES["judged"])["raw"]
        prompts = [line["prompt"] for line in read_lines(one / "judged" / "replies.jsonl") if "prompt" in line]
        found.append({
            "prompts": prompts, "completions": [own.tolist() for own in draws], "rewards": raw[0].tolist(),
            "finished": draws.finished.tolist(),
        })  # fmt: skip
    return found


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    step, gradients = Engine.step, Gradients()

    def watched(engine: Engine, number: int):
        gradients.model = engine.scorer.model
        return step(engine, number)

    Engine.step = watched
    found = {}
    for case, path in asked["recipes"].items():
        files = gradients.begin(out.parent / case)
        folder = alignzoo.run(path).folder
        losses = [line["loss"] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
        found[case] = {"losses": losses, "gradients": files, "rollouts": rollouts(folder)}
    out.write_text(json.dumps({"cases": found}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
