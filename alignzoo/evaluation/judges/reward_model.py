"""A judge that a recipe trains: its run comes first, once, and is reused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.interfaces.component import NoEffect
from alignzoo.interfaces.judge import Judge, Prompt


class RewardModel(Judge):
    """Score replies with a reward model that another recipe trains.

    The run of that recipe is done first, once, and reused, as that of `model.from` is. The model reads text, so that
    its tokenizer may be another than the policy's.
    """

    name = "reward_model"
    source = "reward models: Ouyang et al. 2022 (arXiv:2203.02155), section 3.5"
    needs_runs = ("from",)

    from_: str = Field(alias="from", description="recipe of the reward model, whose run comes first and is reused")
    label: int | str | None = Field(None, description="output that is the score; null: the only one")
    probability: bool = Field(False, description="the score is the sigmoid of the output, as for `reward_classifier`")
    micro_batch_tokens: Annotated[int, NoEffect] = Field(
        8192, ge=1, description="token slots per batch; changes speed, not scores"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of weights and arithmetic")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if available")

    _classifier: Classifier | None = PrivateAttr(None)

    def open_run(self, folder: Path) -> None:
        """Score with the trained model in this folder from now on."""
        own = {name: getattr(self, name) for name in ("label", "probability", "micro_batch_tokens", "dtype", "device")}
        if self._classifier is None or self._classifier.path != str(folder):
            self._classifier = Classifier(path=str(folder), **own)

    def scores(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> list[float]:
        """Return the model's output for each reply, whatever the batches.

        Raises:
            ValueError: There is no run of the recipe: it is a reward or a judge of a recipe alone.
        """
        if self._classifier is None:
            raise ValueError(
                "reward_model is trained for a recipe; name its folder here: {name: classifier, path: FOLDER}"
            )
        return self._classifier.scores(prompts, replies)
