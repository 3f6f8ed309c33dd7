"""The section `critic`: the start and the learning rate of the model that gives values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError

from alignzoo.interfaces.component import Spelling, Strict
from alignzoo.interfaces.model_source import Lora, ModelSource
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.components import ComponentBuilder
from alignzoo.recipe.pydantic_errors import problems_of

AT = ("critic",)


class CriticConfig(Strict):
    """The critic of an objective: a model of its own, with one number for each token.

    In a recipe its fields stand beside those of the model that it starts from, such as `from` and `path`. Without such
    a field it starts from the run of the first `reward_model` that counts among the rewards, or else as the policy
    does. A head that the weights lack is initialized from the seed.

    Beside a policy with adapters it is an adapter and a head on the same frozen weights. A run that it starts from then
    has an adapter on these weights too.
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
    lora: Lora | None = Field(
        None, description="adapters of the critic beside those of model.lora; null: as those, or as in its start"
    )

    @property
    def is_default(self) -> bool:
        """True for a section without effect."""
        return self == CriticConfig()

    def fingerprint(self) -> dict[str, Any]:
        """Return everything but the model that a critic depends on."""
        return self.model_dump(mode="json", exclude={"model"} | ({"lora"} if self.lora is None else set()))

    def to_recipe(self, spelling: Spelling | None = None) -> dict[str, Any]:
        """Return the section as a recipe writes it."""
        model = {} if self.model is None else self.model.to_recipe(spelling)
        return {**model, **self.model_dump(mode="json", exclude={"model"})}


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
        if model.quantize:
            builder.problems.add((*AT, "quantize"), "a critic shares the policy's weights", "model.quantize")
    try:
        return CriticConfig(model=model, **own)
    except ValidationError as error:
        builder.problems.extend(problems_of(error, builder.problems.node, AT, CriticConfig))
        return None


def check_critic(plain: Mapping[str, Any], builder: ComponentBuilder) -> None:
    """Add a problem for a critic that nothing trains, or adapters of the critic alone."""
    objective, model = plain.get("objective"), plain.get("model")
    if not isinstance(objective, Objective):
        return
    if objective.head != "value" and plain.get("critic") is not None:
        builder.problems.add(AT, f"{objective.name} trains no critic", "no such section")
    elif getattr(plain.get("critic"), "lora", None) and not getattr(model, "lora", None):
        what = "a critic has adapters where the policy has them"
        builder.problems.add((*AT, "lora"), what, "model.lora too, or no critic.lora")
