"""The built-in judges, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.judge import Judge
from alignzoo.judges.sample import SampleJudge


@hookimpl
def register_judges() -> list[type[Judge]]:
    """Name the one of this package."""
    return [SampleJudge]
