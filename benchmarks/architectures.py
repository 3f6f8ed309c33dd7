"""Forest against plain: how far log-probs and gradients of eleven architectures are from the one-sequence forward.

Run as: python benchmarks/architectures.py
The models are the tests' own (tests/architectures.py): random weights, tiny, float32. The oracle is the model's own
forward on one sequence at a time.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from architectures import FOREST, PLAIN, VOCABULARY, build  # noqa: E402

from alignzoo.forest import lay, sequences  # noqa: E402
from alignzoo.layout import choose_layout  # noqa: E402
from alignzoo.scoring import Scorer, per_sequence  # noqa: E402
from alignzoo.tree import Branch, Tree, Trees  # noqa: E402


def random_trees(count: int) -> list[Tree]:
    rng = np.random.default_rng(1)

    def some(low: int, high: int) -> np.ndarray:
        return rng.integers(1, VOCABULARY, rng.integers(low, high)).astype(np.int32)

    return [Tree(str(i), some(5, 60), (Branch(some(3, 40), i % 3), Branch(some(3, 40)))) for i in range(count)]


def plain(model, trees: list[Tree]) -> torch.Tensor:
    sums = []
    for tree, branch in sequences(trees):
        ids = torch.from_numpy(np.concatenate([tree.prompt, branch.tokens])).long()
        first = len(tree.prompt) + branch.scored_from
        log_probs = model(ids[None], use_cache=False).logits[0].log_softmax(-1)[first - 1 : -1]
        sums.append(log_probs.gather(1, ids[first:, None]).sum())
    return torch.stack(sums)


def gradient(model, sums: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    sums.square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def measure(name: str, trees: list[Tree]) -> dict:
    model = build((FOREST | PLAIN)[name]())
    scorer = Scorer(model)
    layout = choose_layout(scorer, Trees.build(trees), "auto")
    want = plain(model, trees)
    want_gradient = gradient(model, want)
    forest = lay(trees, layout.used)
    got = per_sequence(scorer(forest)["log_prob"], forest.offsets)
    relative = float(((got - want).abs() / want.abs()).max())
    difference = (gradient(model, got) - want_gradient).norm() / want_gradient.norm()
    return {"layout": layout.used, "log_prob": relative, "gradient": float(difference), "reason": layout.reason}


def main() -> None:
    trees = random_trees(24)
    results = {name: measure(name, trees) for name in FOREST | PLAIN}
    versions = {name: version(name) for name in ("torch", "transformers", "alignzoo")}
    lines = [
        "# Forest against the one-sequence forward", "", "Command: `python benchmarks/architectures.py`",
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}; CPU, float32, 24 trees of two completions).", "",
        "| architecture | layout | max relative error of log-probs | relative error of gradients | why |",
        "|---|---|---:|---:|---|",
    ]  # fmt: skip
    for name, one in results.items():
        lines.append(f"| {name} | {one['layout']} | {one['log_prob']:.1e} | {one['gradient']:.1e} | {one['reason']} |")
    text = "\n".join(lines) + "\n"
    output = ROOT / "benchmarks" / "results"
    output.mkdir(parents=True, exist_ok=True)
    (output / "architectures.md").write_text(text)
    (output / "architectures.json").write_text(json.dumps({"versions": versions, "results": results}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
