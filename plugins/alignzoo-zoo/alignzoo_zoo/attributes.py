"""Reward models of labels and of several attributes."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignzoo import Field, Objective, Ranked, Unpaired
from alignzoo_zoo.unpaired import signed


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


class ProcessReward(Objective):
    """A process reward model (PRM): the probability that a solution is right so far, at the end of each step.

    `data.format: steps` reads steps with labels. With single labels, or with `last_only`, it is an outcome reward
    model (ORM). The score is the log-odds: the difference of the logits in a softmax of two classes, as TRL has it. It
    is read at the end-of-sequence token after a step; in TRL at the separator. Each step is scored after the steps
    before it, in a sequence of its own.

    When: steps of solutions are labeled, or whole solutions as right or wrong.

    Not when: answers are only compared: `bradley_terry`.
    """

    name = "process_reward"
    family = "reward models"
    source = "Uesato et al. 2022, arXiv:2211.14275; Lightman et al. 2023, arXiv:2305.20050"
    equation = "right: -log sigmoid(s); wrong: -log sigmoid(-s)"
    data = "unpaired"
    head = "scalar"
    reference = "none"

    def loss(self, batch: Unpaired) -> Tensor:
        """Return the loss, shape (B,)."""
        return -logsigmoid(signed(batch, batch.completion.scalar))


ATTRIBUTES = [AttributeRegression, ProcessReward]
