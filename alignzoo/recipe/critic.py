"""The section `critic`: the start and the learning rate of the model that gives values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError

from alignzoo.interfaces.component import Spelling, Strict
from alignzoo.interfaces.model_source import ON_TOP, ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.pydantic_errors import problems_of

AT = ("critic",)


class CriticConfig(Strict):
    """The critic of an objective: a model of its own, with one number for each token.

    In a recipe its fields stand beside those of the model that it starts from, such as `from` and `path`. Without such
    a field it starts from the run of the first `reward_model` that counts among the rewards, or else as the policy
    does. A head that the weights lack is initialized from the seed.
    """

    model: SerializeAsAny[ModelSource] | None = Field(
        None, description="what it starts from; null: the first reward model's run, or else what the policy starts from"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="learning rate after the warm-up; null: that of train.optimizer"
    )
    max_grad_norm: float | None = Field(
        10.0, gt=0, description="limit of the norm of the critic's gradient; null: no clipping"
    )

    @property
    def is_default(self) -> bool:
        """True for a section without effect."""
        return self == CriticConfig()

    def to_recipe(self, spelling: Spelling | None = None) -> dict[str, Any]:
        """Return the section as a recipe writes it."""
        model = {} if self.model is None else self.model.to_recipe(spelling)
        return {**model, **self.model_dump(exclude={"model"})}


FIELDS = tuple(name for name in CriticConfig.model_fields if name != "model")
"""Keys of the section beside those of the model."""


def build_critic(given: Any, builder: ComponentBuilder) -> CriticConfig | None:
    """Return the section, or None where it has a problem."""
    if not isinstance(given, dict):
        builder.problems.add(AT, f"a {type(given).__name__}", "a mapping, such as {learning_rate: 1e-5}")
        return None
    node = dict(given)
    own = {key: node.pop(key) for key in FIELDS if key in node}
    model = None
    if node:
        model = builder.build({"name": "transformers"} | node, AT, "model source", FIELDS)
        if model is None:
            return None
        for key in ON_TOP:
            if getattr(model, key):
                builder.problems.add((*AT, key), "a critic is trained as the policy is", f"no {key}")
    try:
        return CriticConfig(model=model, **own)
    except ValidationError as error:
        builder.problems.extend(problems_of(error, builder.problems.node, AT, CriticConfig))
        return None


def check_critic(plain: Mapping[str, Any], builder: ComponentBuilder) -> None:
    """Add a problem for a critic that nothing trains, and for one beside adapters."""
    objective, model = plain.get("objective"), plain.get("model")
    if not isinstance(objective, Objective):
        return
    if objective.head != "value" and plain.get("critic") is not None:
        builder.problems.add(AT, f"{objective.name} trains no critic", "no such section")
    if objective.head == "value" and getattr(model, "lora", None):
        what = f"{objective.name} trains a critic, which is a whole model and has no adapters"
        builder.problems.add(("model", "lora"), what, "training of all weights, or an objective without a critic")
