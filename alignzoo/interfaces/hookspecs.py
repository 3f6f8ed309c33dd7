"""The hooks that register plugins, one for each kind of component.

A hook takes no arguments and returns a list of classes. A class has a `name`, pydantic fields with descriptions, and a
docstring, which listings, recipe errors and the run folder's provenance show.

A plugin is a distribution with an entry point in the group `alignzoo` that names a module (or object) with functions
marked `@alignzoo.hookimpl`. The built-ins register through the same hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from alignzoo.interfaces.data_source import DataSource
    from alignzoo.interfaces.executor import Executor
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
    """Register objectives: losses on log-probabilities, with the inputs that they declare."""


@hookspec
def register_modifiers() -> list[type[Modifier]]:  # type: ignore[empty-body]
    """Register modifiers, which change the log-ratios or the loss of any objective."""


@hookspec
def register_data_sources() -> list[type[DataSource]]:  # type: ignore[empty-body]
    """Register data sources, which yield preference rows."""


@hookspec
def register_formats() -> list[type[Format]]:  # type: ignore[empty-body]
    """Register formats, which turn a record of a file or a dataset into a row."""


@hookspec
def register_models() -> list[type[ModelSource]]:  # type: ignore[empty-body]
    """Register model sources, which load the tokenizer and the model to start from."""


@hookspec
def register_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """Register metrics: numbers of held-out examples, reported as mean and standard error."""


@hookspec
def register_judges() -> list[type[Judge]]:  # type: ignore[empty-body]
    """Register judges, which rate the policy's replies or compare two of them."""


@hookspec
def register_reporters() -> list[type[Reporter]]:  # type: ignore[empty-body]
    """Register reporters, which turn run records into a page, a model card or tracker entries."""


@hookspec
def register_executors() -> list[type[Executor]]:  # type: ignore[empty-body]
    """Register executors, which start the workers that do a comparison's runs."""


KINDS: dict[str, tuple[str, str]] = {
    "objective": ("register_objectives", "alignzoo.interfaces.objective:Objective"),
    "modifier": ("register_modifiers", "alignzoo.interfaces.modifier:Modifier"),
    "data source": ("register_data_sources", "alignzoo.interfaces.data_source:DataSource"),
    "format": ("register_formats", "alignzoo.interfaces.format:Format"),
    "model source": ("register_models", "alignzoo.interfaces.model_source:ModelSource"),
    "metric": ("register_metrics", "alignzoo.interfaces.metric:Metric"),
    "judge": ("register_judges", "alignzoo.interfaces.judge:Judge"),
    "reporter": ("register_reporters", "alignzoo.interfaces.reporter:Reporter"),
    "executor": ("register_executors", "alignzoo.interfaces.executor:Executor"),
}
"""kind -> (its hook, the base class of what the hook returns)."""
