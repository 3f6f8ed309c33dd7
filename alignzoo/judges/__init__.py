"""The built-in judges, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.judge import Judge
from alignzoo.judges.chat import Chat
from alignzoo.judges.classifier import Classifier
from alignzoo.judges.sample import SampleJudge


@hookimpl
def register_judges() -> list[type[Judge]]:
    """Name the three of this package."""
    return [SampleJudge, Classifier, Chat]
