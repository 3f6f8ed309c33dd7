"""Experiment trackers, through accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from alignzoo.core.dotted import dotted_items
from alignzoo.core.errors import UserError
from alignzoo.interfaces.reporter import Reporter

Name = Literal["tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"]
PACKAGE_OF = {"comet_ml": "comet-ml"}
"""Trackers whose pip package is called otherwise."""


class Tracker(Reporter):
    """An experiment tracker: every number of every step and evaluation, and the resolved recipe.

    Whatever accelerate knows; its own settings come from its environment variables, and no key is written anywhere.
    """

    name = "tracker"

    to: Name = Field("tensorboard", description="which one; its package must be installed")
    project: str = Field("alignzoo", description="what the runs are filed under; files go to the run folder")

    _open: Any = PrivateAttr(None)

    def ready(self) -> None:
        """Whether the tracker's package is there."""
        from importlib.util import find_spec

        if find_spec(self.to) is None:
            package = PACKAGE_OF.get(self.to, self.to)
            raise UserError(f"the tracker {self.to} is not installed", hint=f"pip install {package}")

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Open the tracker and tell it the recipe."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        cls = LOGGER_TYPE_TO_CLASS[self.to]
        where = {"logging_dir": str(folder / "tracker")} if cls.requires_logging_directory else {}
        self._open = cls(self.project, **where)
        self._open.start()
        self._open.store_init_configuration({key: _plain(value) for key, value in dotted_items(recipe)})

    def on_log(self, folder: Path, line: Mapping[str, Any]) -> None:
        """`train/loss`, `eval/preference_accuracy` and the like, at their step."""
        numbers = {f"{line['kind']}/{key}": value for key, value in line.items() if key not in ("kind", "step")}
        self._open.log(numbers, step=line["step"])

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Close it."""
        self._open.finish()


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
