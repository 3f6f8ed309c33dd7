"""The environment of one run, passed to each of its phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.signals import GracefulShutdown
from alignzoo.recipe.resolved import Resolved
from alignzoo.recipe.schema import Recipe
from alignzoo.training.reporting import Reporting
from alignzoo.training.run_folder import RunFolder


@dataclass
class Job:
    """One run of one recipe in one folder."""

    resolved: Resolved
    folder: RunFolder
    start: Path | None
    """The policy folder of the run that this one starts from; None for the model source's own weights."""
    screen: Screen
    ranks: Ranks
    reference_starts: Mapping[str, Path] = field(default_factory=dict)
    """Name of a reference -> the policy folder of the run that it is, for those that are runs."""
    critic_start: Path | None = None
    """The policy folder of the run that the critic starts from; None for another start."""
    fresh: bool = False
    """True to begin at the first step, also where a run of another length has gone further."""
    stopping: GracefulShutdown = field(default_factory=GracefulShutdown)
    reporting: Reporting = field(init=False)

    def __post_init__(self) -> None:
        if self.ranks.count > 1:
            self.stopping.agree = lambda asked: max(self.ranks.all_gather(asked))
        reporters = self.recipe.reporters if self.ranks.main else ()
        self.reporting = Reporting(reporters, self.folder.path, self.screen)

    @property
    def recipe(self) -> Recipe:
        """The recipe that is run."""
        return self.resolved.recipe
