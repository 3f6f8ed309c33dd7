"""The reference pass: score what the cache does not hold yet, and hand back every sequence's reference log-probs."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.arrays import on_disk
from alignzoo.forest import Forest, lay, sequences
from alignzoo.memory import in_parts
from alignzoo.models import weights_fingerprint
from alignzoo.progress import Screen
from alignzoo.ranks import Ranks, dealt
from alignzoo.refcache import ReferenceCache
from alignzoo.scoring import Scorer
from alignzoo.tree import Trees, sequence_key

FLUSH_SLOTS = 2_000_000
"""An interrupted pass loses at most the scores of about this many token slots."""


@dataclass
class Reference:
    """The reference's log-probs of some trees: `places` in the cache, one for each branch of each tree."""

    trees: Trees
    cache: ReferenceCache
    places: NDArray[np.int64]
    rows_scored: int
    rows_cached: int

    def tokens(self, tree: int, branch: int) -> NDArray[np.float32]:
        """Token log-probs of one branch, read from the cache."""
        return self.cache.get(int(self.places[self.trees.branches(tree)[0] + branch]))


def cache_folder(root: Path, scorer: Scorer) -> Path:
    """The cache folder of this reference: weights, architecture and precision, nothing else."""
    about = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}
    config = {key: value for key, value in sorted(scorer.model.config.to_dict().items()) if key not in about}
    text = f"{weights_fingerprint(scorer.model)} {config!r} {scorer.model.dtype} {scorer.precision}"
    return root / "reference" / blake2b(text.encode(), digest_size=16).hexdigest()


def score_reference(
    scorer: Scorer, trees: Trees, folder: Path, budget: int, screen: Screen, who: str = "reference",
    ranks: Ranks | None = None,
) -> Reference:  # fmt: skip
    """Score the trees with `scorer` (the policy before its first step), skipping what the cache in `folder` holds.

    `who` is what the scorer is called on the screen. Of several processes that share the folder each scores its part;
    where every host has a folder of its own, the processes of each host do. Raises RunFailed where memory is too little
    for a single row, or the cache can't be written.
    """
    cache = ranks.main_first(lambda: ReferenceCache(folder)) if ranks else ReferenceCache(folder)
    for path in cache.damaged:
        screen.say(f"reference cache: {path.name} is damaged; set aside, its rows are scored again")
    keys = trees.keys
    places = cache.find(keys)
    missing = _missing(trees, places)
    screen.say(f"{who}: {len(trees) - len(missing):,} of {len(trees):,} rows cached, {len(missing):,} to score")
    if ranks is not None and ranks.count > 1:
        part = missing[dealt(trees.sizes[missing], *ranks.seat(folder))]
        _score(scorer, trees, part, cache, budget, screen, who, ranks)
        ranks.everyone()
        cache = ReferenceCache(folder)  # with what the others have written
        places = cache.find(keys)
    left = _missing(trees, places)
    sharded = ranks is not None and ranks.sharded and any(ranks.everyone(len(left)))
    if len(left) or sharded:  # of several processes none, unless another job writes to the folder too
        _score(scorer, trees, left, cache, budget, screen, who, ranks)
        places = cache.find(keys)
    return Reference(trees, cache, on_disk(places, folder), len(missing), len(trees) - len(missing))


def _missing(trees: Trees, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The trees of which a branch has no place in the cache."""
    absent = np.logical_or.reduceat(places < 0, trees.first[:-1]) if len(trees) else places < 0
    return np.flatnonzero(absent)


def _score(
    scorer: Scorer, trees: Trees, missing: NDArray[np.int64], cache: ReferenceCache, budget: int, screen: Screen,
    who: str, ranks: Ranks | None,
) -> None:  # fmt: skip
    device = next(scorer.parameters()).device
    unsaved = 0

    def work(rows: list[int]) -> tuple[Forest, NDArray[np.float32]]:
        forest = lay([trees[row] for row in rows], scorer.layout).to(device)
        return forest, scorer(forest)["log_prob"].cpu().numpy()

    try:
        with screen.bar(who, len(missing)) as advance, torch.no_grad():
            for rows, (forest, scores) in in_parts(trees, missing, budget, scorer.layout, work, screen.say, ranks):
                cuts, part = forest.offsets.tolist(), (trees[row] for row in rows)
                for (tree, branch), a, b in zip(sequences(part), cuts, cuts[1:], strict=False):
                    cache.add(sequence_key(tree.prompt, branch), scores[a:b])
                unsaved += forest.slots
                if unsaved >= FLUSH_SLOTS:
                    cache.flush()
                    unsaved = 0
                advance(len(rows), "")
    finally:
        cache.flush()
