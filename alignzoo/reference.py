"""The reference pass: score what the cache does not hold yet, and hand back every sequence's reference log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.forest import lay, plan, sequences
from alignzoo.models import weights_fingerprint
from alignzoo.progress import Screen
from alignzoo.refcache import ReferenceCache
from alignzoo.scoring import Scorer
from alignzoo.tree import Tree, Trees, sequence_key

FLUSH_SLOTS = 2_000_000
"""An interrupted pass loses at most the scores of about this many token slots."""


@dataclass
class Reference:
    """The reference's log-probs of some trees. `sums[first[t] + b]` is branch b of tree t, summed."""

    cache: ReferenceCache
    places: NDArray[np.int64]
    sums: NDArray[np.float32]
    first: NDArray[np.int64]
    rows_scored: int
    rows_cached: int

    def of(self, tree: int, branches: int) -> NDArray[np.float32]:
        """Summed log-probs of the first `branches` branches of a tree."""
        start = int(self.first[tree])
        return self.sums[start : start + branches]

    def tokens(self, tree: int, branch: int) -> NDArray[np.float32]:
        """Token log-probs of one branch, read from the cache."""
        return self.cache.get(int(self.places[self.first[tree] + branch]))


def cache_folder(root: Path, scorer: Scorer) -> Path:
    """The cache folder of this reference: weights, architecture and precision, nothing else."""
    about = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}
    config = {key: value for key, value in sorted(scorer.model.config.to_dict().items()) if key not in about}
    text = f"{weights_fingerprint(scorer.model)} {config!r} {scorer.model.dtype} {scorer.precision}"
    return root / "reference" / blake2b(text.encode(), digest_size=16).hexdigest()


def score_reference(scorer: Scorer, trees: Trees, folder: Path, budget: int, screen: Screen) -> Reference:
    """Score the trees with `scorer` (the policy before its first step), skipping what the cache in `folder` holds."""
    cache = ReferenceCache(folder)
    for path in cache.damaged:
        screen.say(f"reference cache: {path.name} is damaged; set aside, its rows are scored again")
    keys = [sequence_key(tree.prompt, branch) for tree, branch in sequences(trees)]
    branches = np.diff(trees.trees) - 1
    first = np.concatenate([[0], np.cumsum(branches)])
    absent = cache.find(keys) < 0
    missing = [t for t in range(len(trees)) if absent[first[t] : first[t + 1]].any()]
    screen.say(f"reference: {len(trees) - len(missing):,} of {len(trees):,} rows cached, {len(missing):,} to score")
    if missing:
        _score(scorer, [trees[t] for t in missing], cache, budget, screen)
    places = cache.find(keys)
    sums = np.array([cache.get(int(place)).sum(dtype=np.float64) for place in places], dtype=np.float32)
    return Reference(cache, places, sums, first, len(missing), len(trees) - len(missing))


def _score(scorer: Scorer, trees: Sequence[Tree], cache: ReferenceCache, budget: int, screen: Screen) -> None:
    device = next(scorer.parameters()).device
    unsaved = 0
    try:
        with screen.bar("reference", len(trees)) as advance, torch.no_grad():
            for part in plan(trees, budget, scorer.layout):
                chosen = [trees[i] for i in part]
                forest = lay(chosen, scorer.layout).to(device)
                scores = scorer(forest)["log_prob"].cpu().numpy()
                cuts = forest.offsets.tolist()
                for (tree, branch), a, b in zip(sequences(chosen), cuts, cuts[1:], strict=False):
                    cache.add(sequence_key(tree.prompt, branch), scores[a:b])
                unsaved += forest.slots
                if unsaved >= FLUSH_SLOTS:
                    cache.flush()
                    unsaved = 0
                advance(len(part), "")
    finally:
        cache.flush()
