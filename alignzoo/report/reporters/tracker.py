"""Reporter for experiment trackers, through accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from alignzoo.core.errors import UserError
from alignzoo.interfaces.reporter import Reporter

Name = Literal["tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"]
PACKAGE_OF = {"comet_ml": "comet-ml"}
"""Trackers whose pip package has another name."""


class Tracker(Reporter):
    """Log the numbers of every step and evaluation to an experiment tracker.

    Supports the trackers of accelerate. They take their own settings from environment variables; no key is written. The
    resolved recipe is logged too.
    """

    name = "tracker"

    to: Name = Field("tensorboard", description="name of the tracker; its package must be installed")
    project: str = Field("alignzoo", description="project of the runs; files go to the run folder")

    _open: Any = PrivateAttr(None)

    def ready(self) -> None:
        """Check that the tracker's package is installed.

        Raises:
            UserError: It is not.
        """
        from importlib.util import find_spec

        if find_spec(self.to) is None:
            package = PACKAGE_OF.get(self.to, self.to)
            raise UserError(f"the tracker {self.to} is not installed", hint=f"pip install {package}")

    def on_start(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        """Open the tracker and store the recipe."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        cls = LOGGER_TYPE_TO_CLASS[self.to]
        where = {"logging_dir": str(folder / "tracker")} if cls.requires_logging_directory else {}
        self._open = cls(self.project, **where)
        self._open.start()
        self._open.store_init_configuration(dict(_flat(recipe, "")))

    def on_log(self, folder: Path, line: Mapping[str, Any]) -> None:
        """Log `train/loss`, `eval/preference_accuracy` and the like at their step."""
        numbers = {f"{line['kind']}/{key}": value for key, value in line.items() if key not in ("kind", "step")}
        self._open.log(numbers, step=line["step"])

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Close the tracker. A finished run that is reported again has none open."""
        if self._open is not None:
            self._open.finish()


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield `train.optimizer.name` and the like: trackers take no nested settings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)
