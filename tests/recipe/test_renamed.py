"""Former spellings of recipe keys and values: each is an error at its place that names the present one."""

from __future__ import annotations

import pytest

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.renamed import RENAMED

SHIPPED = "dpo_hh"


@pytest.mark.parametrize(
    ("override", "at", "new"),
    [
        ("train.tokens_per_batch=9", "train.tokens_per_batch", "train.micro_batch_tokens"),
        ("train.layout=forest", "train.layout", "padded"),
        ("eval.samples=2", "eval.samples", "eval.replies.num_prompts"),
        ("eval.sample_tokens=8", "eval.sample_tokens", "eval.replies.max_new_tokens"),
        ("data.held_out=0.2", "data.held_out", "data.held_out_fraction"),
        ("data.train_rows=9", "data.train_rows", "data.max_train_rows"),
        ("data.pairs=best_worst", "data.pairs", "extremes"),
        ("data.pairs=neighbours", "data.pairs", "adjacent"),
        ("data.path=sample", "data.path", "toy"),
        ("data=table", "data.name", "files"),
        ("data={name: sample, completions: 4}", "data.name", "toy"),
        ("eval.judges=[sample]", "eval.judges.0.name", "toy"),
        ("eval.metrics=normalised_accuracy", "eval.metrics.0.name", "normalized_accuracy"),
        ("objective.modifiers=length_normalised", "objective.modifiers.0.name", "length_normalization"),
        ("objective=[sft, {name: dpo, modifiers: [public_length]}]", "objective.1.modifiers.0.name",
         "length_desensitization"),
        ("objective.modifiers=[down_sampled]", "objective.modifiers.0.name", "length_downsampling"),
        ("objective.modifiers=[{name: likelihood_weight}]", "objective.modifiers.0.name", "wpo_weighting"),
        ("objective.modifiers=[{name: label_smoothing, share: 0.2}]", "objective.modifiers.0.share",
         "objective.modifiers.0.epsilon"),
        ("objective=[sft, {name: dpo, modifiers: [{name: margin, reward: 2}]}]", "objective.1.modifiers.0.reward",
         "objective.1.modifiers.0.value"),
    ],
)  # fmt: skip
def test_a_former_spelling_names_the_present_one(override, at, new):
    with pytest.raises(UserError) as error:
        load_recipe(SHIPPED, [override])
    (problem,) = error.value.problems
    assert problem.what.startswith(f"{at}: ")
    assert (problem.where, problem.expected) == ("command line", new)


def test_every_former_spelling_is_tried_above():
    (marker,) = test_a_former_spelling_names_the_present_one.pytestmark
    of_comparisons = {"sampling"}  # tests/compare/test_plan.py
    assert len(marker.args[1]) == len(RENAMED.keys() - of_comparisons)
