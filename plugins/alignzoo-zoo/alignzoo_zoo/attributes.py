"""Reward models with one output for each attribute of a completion."""

import torch
from torch import Tensor

from alignzoo import Field, Objective, Ranked


class AttributeRegression(Objective):
    """SteerLM's reward model: a regression of each attribute that the data rates.

    Its outputs have the names of the attributes, which are also the labels in the model's config. A row may have a
    single completion.

    When: answers are rated by several attributes.

    Not when: one score is there: `score_regression`; or only an order: `bradley_terry`.
    """

    name = "attribute_regression"
    family = "reward models"
    source = "Wang et al. 2023 (HelpSteer), arXiv:2311.09528; Dong et al. 2023 (SteerLM), arXiv:2310.05344"
    equation = "mean over attributes and completions of (s_a - y_a)^2"
    data = "ranked"
    min_completions = 1
    head = "scalar"
    reference = "none"
    column_fields = ("attributes",)
    output_fields = ("attributes",)
    raises = "nothing"

    attributes: tuple[str, ...] = Field(
        ("helpfulness", "correctness", "coherence", "complexity", "verbosity"), min_length=1,
        description="columns of the data, one output each",
    )  # fmt: skip

    def loss(self, ranked: Ranked) -> Tensor:
        """Return the loss, shape (B,)."""
        rated = ranked.completions
        errors = [(rated.output(name) - rated.column(name)) ** 2 for name in self.attributes]
        return torch.stack(errors).mean((0, 2))


ATTRIBUTES = [AttributeRegression]
