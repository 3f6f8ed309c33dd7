"""Every extension point, one page.

All hooks have one shape: no arguments, return a list of classes. A class carries its `name`, pydantic fields with
descriptions, and a docstring; listing, `show`, recipe errors and the run folder's provenance all read these.

A plugin is a distribution with an entry point in the group `alignzoo` that names a module (or object) with functions
marked `@alignzoo.hookimpl`. The built-ins register through the same hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from alignzoo.interfaces.data_source import DataSource
    from alignzoo.interfaces.format import Format
    from alignzoo.interfaces.judge import Judge
    from alignzoo.interfaces.metric import Metric
    from alignzoo.interfaces.model_source import ModelSource
    from alignzoo.interfaces.modifier import Modifier
    from alignzoo.interfaces.objective import Objective
    from alignzoo.interfaces.reporter import Reporter

PROJECT = "alignzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_objectives() -> list[type[Objective]]:  # type: ignore[empty-body]
    """A loss on log-probabilities, and what it needs to be given."""


@hookspec
def register_modifiers() -> list[type[Modifier]]:  # type: ignore[empty-body]
    """What changes any objective: its log-ratios, its weights, its loss."""


@hookspec
def register_data_sources() -> list[type[DataSource]]:  # type: ignore[empty-body]
    """Where preference rows come from: pydantic fields -> an iterator of rows."""


@hookspec
def register_formats() -> list[type[Format]]:  # type: ignore[empty-body]
    """What a record of a file or a dataset means: a record -> a row."""


@hookspec
def register_models() -> list[type[ModelSource]]:  # type: ignore[empty-body]
    """How the tokenizer and the model that training starts from are obtained."""


@hookspec
def register_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """A number of each held-out example; its mean and standard error are reported."""


@hookspec
def register_judges() -> list[type[Judge]]:  # type: ignore[empty-body]
    """Who reads the policy's answers and says how good they are: a reward, or a preference between two."""


@hookspec
def register_reporters() -> list[type[Reporter]]:  # type: ignore[empty-body]
    """What is made of a run's records: a page, a tracker, a model card."""


KINDS: dict[str, tuple[str, str]] = {
    "objective": ("register_objectives", "alignzoo.interfaces.objective:Objective"),
    "modifier": ("register_modifiers", "alignzoo.objectives.composition:Modifier"),
    "data source": ("register_data_sources", "alignzoo.interfaces.data_source:DataSource"),
    "format": ("register_formats", "alignzoo.interfaces.format:Format"),
    "model source": ("register_models", "alignzoo.interfaces.model_source:ModelSource"),
    "metric": ("register_metrics", "alignzoo.interfaces.metric:Metric"),
    "judge": ("register_judges", "alignzoo.interfaces.judge:Judge"),
    "reporter": ("register_reporters", "alignzoo.interfaces.reporter:Reporter"),
}
"""kind -> (its hook, the class that everything it returns must derive from)."""
