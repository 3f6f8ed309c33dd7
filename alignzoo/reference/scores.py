"""Reference pass: score the uncached sequences, and return all reference log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.core.arrays import spill_to_disk
from alignzoo.core.console import Screen
from alignzoo.core.distributed.gather import own_class
from alignzoo.core.distributed.process_group import Ranks, deal_rows
from alignzoo.core.errors import RunFailed
from alignzoo.core.locks import locked_if_possible
from alignzoo.core.signals import shielded
from alignzoo.data.trees import Tree, Trees, sequence_key
from alignzoo.models.fingerprint import remote_code_digests, weights_fingerprint
from alignzoo.reference.cache import ReferenceCache
from alignzoo.scoring.exactness import Check, SpotCheck, must_stop
from alignzoo.scoring.forest import PACKED, PLAIN, Forest, lay_out, sequences
from alignzoo.scoring.layout import CHECK_VERSION
from alignzoo.scoring.microbatches import in_micro_batches
from alignzoo.scoring.scorer import Scorer

FLUSH_SLOTS = 2_000_000
"""An interrupted pass loses at most the scores of about this many token slots."""


@dataclass
class ReferenceScores:
    """Reference log-probs of some trees, in a cache.

    `places` are indices of the cache, one for each branch.
    """

    trees: Trees
    cache: ReferenceCache
    places: NDArray[np.int64]
    rows_scored: int
    rows_cached: int

    def tokens(self, tree: int, branch: int) -> NDArray[np.float32]:
        """Return the token log-probs of one branch, (n,), in nats."""
        return self.cache.get(int(self.places[self.trees.branches(tree)[0] + branch]))


def cache_folder(root: Path, scorer: Scorer, source_code: str = "") -> Path:
    """Return the cache folder of this reference, named by a digest.

    The digest covers all that the scores depend on but the tokens. These are weights, config, class, remote code, the
    version of transformers, dtypes, and the layout with the version of its check. Scores of a layout that proves wrong
    are thus never read for another one.

    `source_code` is the digest of the plugin that loaded the model (`Resolved.source_code`).
    """
    model = scorer.model
    about = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}
    config = {key: value for key, value in sorted(model.config.to_dict().items()) if key not in about}
    code = (own_class(model).__qualname__, source_code, remote_code_digests(model), version("transformers"))
    layout = (CHECK_VERSION, scorer.layout, scorer.whole_head, scorer.flex)
    text = f"{weights_fingerprint(model)} {config!r} {model.dtype} {scorer.precision} {code!r} {layout!r}"
    return root / "reference" / blake2b(text.encode(), digest_size=16).hexdigest()


def score_reference(
    scorer: Scorer, trees: Trees, folder: Path, budget: int, screen: Screen, label: str = "reference",
    ranks: Ranks | None = None, spot: SpotCheck | None = None,
) -> ReferenceScores:  # fmt: skip
    """Score the trees with `scorer`, skipping those that the cache in `folder` has.

    `scorer` is the policy before its first step. A few rows of every shard are compared with `spot`, the model's own
    forward by default, before the shard is written.

    `label` names the scorer on the screen. Several processes that share the folder score a part each; where every host
    has a folder of its own, each host's processes do. Raises RunFailed when memory is too little for a single row, the
    cache can't be written, or the scores are not the model's own.
    """
    if spot is None and not (ranks is not None and ranks.sharded):
        spot = SpotCheck(scorer)
    rows, keys, main = np.arange(len(trees)), trees.keys, ranks is None or ranks.main
    cache = ranks.main_process_first(lambda: ReferenceCache(folder)) if ranks else ReferenceCache(folder)
    for path in cache.damaged:
        screen.info(f"reference cache: {path.name} is damaged: it is set aside, and its rows are scored again")
    if cache.unreadable:
        screen.info(f"reference cache: {len(cache.unreadable):,} shards of another user can't be read; they stay there")
    places = cache.find(keys)
    missing = _missing(trees, places)
    lock, what = folder / ".lock", f"{label}: rows of the same model are scored"
    with locked_if_possible(lock, screen.info, what) if main and len(missing) else nullcontext(False) as waited:
        if any(ranks.all_gather(waited) if ranks else [waited]):  # another job has scored some of them
            cache = ReferenceCache(folder)
            places = cache.find(keys)
            missing = _missing(trees, places)
        screen.info(f"{label}: {len(trees) - len(missing):,} of {len(trees):,} rows cached, {len(missing):,} to score")
        if ranks is not None and ranks.count > 1:
            part = rows[deal_rows(trees.sizes, *ranks.seat(folder))]
            _score(scorer, trees, part, missing, cache, budget, screen, label, ranks, spot)
            ranks.all_gather()
            cache = ReferenceCache(folder)  # with the shards of the other processes
            places = cache.find(keys)
        left = _missing(trees, places)
        sharded = ranks is not None and ranks.sharded and any(ranks.all_gather(len(left)))
        if len(left) or sharded:  # of several processes none, unless another job writes to the folder too
            _score(scorer, trees, rows, left, cache, budget, screen, label, ranks, spot)
            places = cache.find(keys)
    return ReferenceScores(trees, cache, spill_to_disk(places, folder), len(missing), len(trees) - len(missing))


def _missing(trees: Trees, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the trees with a branch that the cache lacks."""
    absent = np.logical_or.reduceat(places < 0, trees.first[:-1]) if len(trees) else places < 0
    return np.flatnonzero(absent)


def _score(
    scorer: Scorer, trees: Trees, rows: NDArray[np.int64], missing: NDArray[np.int64], cache: ReferenceCache,
    budget: int, screen: Screen, label: str, ranks: Ranks | None, spot: SpotCheck | None,
) -> None:  # fmt: skip
    """Score the missing ones of the rows.

    Micro-batches are cut from all rows, whatever the cache holds, and only whole ones are written, so a resumed pass
    has the same ones. In padded layouts only equally wide rows share one, so that a row's bits depend on no neighbor.
    """
    device = next(scorer.parameters()).device
    unsaved, shard = 0, _ShardCheck(spot, screen)
    absent = set(missing.tolist())
    sharded = ranks is not None and ranks.sharded
    alike = None if scorer.layout == PACKED else _widths(trees, scorer.layout)
    part = np.intersect1d(rows, missing) if sharded else rows  # shards take equally many forwards in every process

    def work(rows: list[int]) -> tuple[Forest, NDArray[np.float32]]:
        forest = lay_out([trees[row] for row in rows], scorer.layout).to(device)
        return forest, scorer(forest)["log_prob"].cpu().numpy()

    def keep() -> None:
        shard.check(cache)
        cache.flush()

    try:
        with screen.bar(label, len(np.intersect1d(part, missing))) as advance, torch.no_grad():
            for some, (forest, scores) in in_micro_batches(
                trees, part, budget, scorer.layout, work, screen.info, ranks, absent.__contains__, alike
            ):
                cuts, laid = forest.offsets.tolist(), [trees[row] for row in some]
                values = [scores[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
                for (tree, branch), value in zip(sequences(laid), values, strict=True):
                    cache.add(sequence_key(tree.prompt, branch), value)
                shard.add(laid, values)
                unsaved += forest.slots
                if unsaved >= FLUSH_SLOTS or cache.full:
                    keep()
                    unsaved = 0
                advance(len(some), "")
    finally:
        with shielded():  # what a stop leaves is kept first
            keep()


def _widths(trees: Trees, layout: str) -> NDArray[np.int64]:
    """Return the slots of the row that each tree needs, shape (len,).

    The row has the whole tree, or in the plain layout its longest sequence.
    """
    if layout != PLAIN:
        return trees.sizes
    segments, first = np.diff(trees.segments), trees.trees[:-1]
    prompts = segments[first].copy()
    branches = segments.copy()
    branches[first] = 0
    return prompts + np.maximum.reduceat(branches, first)


class _ShardCheck:
    """The longest and the first tree of the shard that is being made, with their scores."""

    def __init__(self, spot: SpotCheck | None, screen: Screen) -> None:
        self.spot, self.screen = spot, screen
        self.kept: list[tuple[Tree, list[NDArray[np.float32]]]] = []

    def add(self, trees: list[Tree], values: list[NDArray[np.float32]]) -> None:
        """Keep the longest tree so far, and the first of all."""
        cuts = np.cumsum([0, *(len(tree.branches) for tree in trees)])
        longest = max(range(len(trees)), key=lambda i: trees[i].slots)
        for i in dict.fromkeys([longest] if self.kept else [longest, 0]):
            self.kept.append((trees[i], values[cuts[i] : cuts[i + 1]]))
        self.kept.sort(key=lambda one: -one[0].slots)
        del self.kept[1:-1]

    def check(self, cache: ReferenceCache) -> None:
        """Compare the scores of the kept trees with those of the spot check.

        Raises:
            RunFailed: The run has to stop. The shard is dropped.
        """
        kept, self.kept = self.kept, []
        if self.spot is None or not kept:
            return
        found = self.spot.compare([tree for tree, _ in kept], [value for _, values in kept for value in values])
        self.spot.checks.append(found)
        if must_stop([check.over for check in self.spot.checks], self.spot.strict):
            cache.drop()
            raise RunFailed(f"reference pass: {found.problem}")
        if found.over:
            self.screen.info(f"reference pass: one check is over the limit, the shard is kept: {found.problem}")


def spot_check(
    spot: SpotCheck | None, parts: Sequence[ReferenceScores | None], ranks: Ranks | None = None
) -> list[Check]:
    """Check the longest and the first tree of each part as the cache has them.

    Any run may have scored them. Returns the checks that a run logs: those of the shards too where a single outlier may
    be rounding, and this one at the end. Empty without an oracle or a reference. Raises RunFailed where the run has to
    stop.
    """
    trees: list[Tree] = []
    values: list[NDArray[np.float32]] = []
    for part in filter(None, parts):
        for row in dict.fromkeys([int(part.trees.sizes.argmax()), 0]) if len(part.trees) else ():
            trees.append(part.trees[row])
            values += [part.tokens(row, b) for b in range(len(trees[-1].branches))]
    if spot is None or not trees:
        return []
    found = spot.compare(trees, values)
    own = [] if spot.strict else spot.checks
    checks = [check for some in (ranks.all_gather(own) if ranks else [own]) for check in some] + [found]
    if must_stop([check.over for check in checks], spot.strict):
        last = next(check for check in reversed(checks) if check.over)
        raise RunFailed(f"reference: {last.problem}")
    return checks
