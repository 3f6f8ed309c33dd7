"""What the reference cache answers for: the model as it is now, in this layout, and nothing else."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from architectures import FOREST, build
from safetensors.torch import load_file, save_file

from alignzoo.core.console import Screen
from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models import loading as models
from alignzoo.recipe.load import load_recipe
from alignzoo.reference import scores
from alignzoo.reference.scores import cache_folder, score_reference
from alignzoo.scoring.scorer import Scorer
from alignzoo.training import run as run_module


def trees_of(sizes):
    dice = np.random.default_rng(0)
    words = [dice.integers(1, 97, size).astype(np.int32) for size in sizes]
    return Trees.build([Tree(f"r{i}", one[:3], (Branch(one[3:]),)) for i, one in enumerate(words)], {})


def test_layout_check_class_code_and_version_are_in_the_key(tmp_path, monkeypatch):
    scorer = Scorer(build(FOREST["llama"]()), "packed")
    folders = [cache_folder(tmp_path, scorer)]

    def changed(what):
        folders.append(cache_folder(tmp_path, scorer))
        assert len(set(folders)) == len(folders), what

    scorer.layout = "plain"
    changed("layout")
    scorer.whole_head = True
    changed("head")
    monkeypatch.setattr(scores, "CHECK_VERSION", 10**6)
    changed("version of the check")
    monkeypatch.setattr(scores, "version", lambda package: "0.0")
    changed("version of transformers")
    monkeypatch.setattr(scores, "remote_code_digests", lambda model: {"modeling.py": "other"})
    changed("remote code")
    scorer.model.__class__ = type("OtherLlama", (type(scorer.model),), {})
    changed("class")
    with torch.no_grad():
        next(scorer.model.parameters()).view(-1)[0] += 1
    changed("weights in place")


def test_a_wrong_layout_never_answers_for_a_right_one(tmp_path):
    """A model whose packed scores are off, scored packed, then plain: the plain scores are the model's own forward's."""
    trees, model = trees_of([9, 14, 11]), build(FOREST["llama"]())
    for layout in ("packed", "plain"):
        scorer = Scorer(model, layout)
        if layout == "packed":
            scorer.forward = lambda forest, score=scorer.forward: {"log_prob": score(forest)["log_prob"] - 1}
            unchecked = type("Blind", (), {"strict": False, "compare": lambda *_: type("Off", (), {"over": False})})()
        found = score_reference(
            scorer, trees, cache_folder(tmp_path, scorer), 4096, Screen(quiet=True),
            spot=unchecked if layout == "packed" else None,
        )  # fmt: skip
    assert found.rows_scored == 3
    for i, tree in enumerate(trees):
        ids = torch.from_numpy(np.concatenate([tree.prompt, tree.branches[0].tokens])).long()[None]
        with torch.no_grad():
            want = model(ids).logits[0, 2:-1].log_softmax(-1).gather(1, ids[0, 3:, None])[:, 0]
        assert np.abs(found.tokens(i, 0) - want.numpy()).max() < 1e-5


def test_weights_changed_in_place_are_another_run(tmp_path, monkeypatch):
    """Also where size and time of the file stay, and the recipe was loaded before."""
    monkeypatch.setattr(run_module, "_run", lambda resolved, *_: run_module.folder_of(resolved).path)
    folder = tmp_path / "model"
    model = build(FOREST["llama"]())
    model.save_pretrained(folder)
    fields = {"model.path": str(folder), "model.config": None, "model.tokenizer": {"train": "bytes"}}
    resolved = load_recipe("sft_hh", fields)
    first = run_module.run_resolved(resolved, screen=Screen(quiet=True))
    assert run_module.run_resolved(resolved, screen=Screen(quiet=True)) == first
    file = folder / "model.safetensors"
    before, tensors = file.stat(), load_file(file)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file({name: one.clone() for name, one in tensors.items()}, tmp_path / "other", metadata={"format": "pt"})
    raw = (tmp_path / "other").read_bytes()
    with open(file, "r+b") as stream:
        stream.write(raw)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert run_module.run_resolved(resolved, screen=Screen(quiet=True)) != first


@pytest.mark.parametrize("layout", ["padded", "plain"])
def test_a_padded_row_is_scored_at_its_own_width_whatever_the_cache_holds(tmp_path, layout):
    """Bits depend on the width of a row, so no row may be as wide as a neighbor that another run need not have."""
    trees = trees_of([9, 14, 11, 9, 30, 14])
    scorer, widths = Scorer(build(FOREST["llama"]()), layout), {}
    score = scorer.forward

    def watched(forest, *more):
        for target in forest.target.split(forest.offsets.diff().tolist()):
            widths.setdefault(bytes(target.numpy()), set()).add(forest.tokens.shape[1])
        return score(forest, *more)

    scorer.forward = watched
    some = Trees.build([trees[i] for i in (4, 0)], {})
    for part, folder in ((trees, "alone"), (some, "after"), (trees, "after")):
        found = score_reference(scorer, part, tmp_path / folder, 4096, Screen(quiet=True))
    assert found.rows_scored == 4
    assert all(widths[bytes(tree.branches[0].tokens.astype(np.int64))] == {tree.slots} for tree in trees)


def test_a_stopped_pass_goes_on_with_the_same_micro_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "FLUSH_SLOTS", 1)
    trees = trees_of(range(9, 29))
    shapes, scorer = [], Scorer(build(FOREST["llama"]()), "packed")
    score = scorer.forward

    def watched(forest, *more):
        if len(shapes) == 3 and scorer.stop:
            raise KeyboardInterrupt
        shapes.append(forest.target.tolist())
        return score(forest, *more)

    scorer.forward, scorer.stop = watched, False
    score_reference(scorer, trees, tmp_path / "whole", 80, Screen(quiet=True))
    whole, scorer.stop = list(shapes), True
    shapes.clear()
    with pytest.raises(KeyboardInterrupt):
        score_reference(scorer, trees, tmp_path / "stopped", 80, Screen(quiet=True))
    scorer.stop = False
    score_reference(scorer, trees, tmp_path / "stopped", 80, Screen(quiet=True))
    assert shapes == whole
    assert models.remote_code_digests(scorer.model) == {}
