"""The built-in judges, registered through the hook that plugins use."""

from alignzoo.evaluation.judges.chat import Chat
from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.evaluation.judges.toy import ToyJudge
from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.judge import Judge


@hookimpl
def register_judges() -> list[type[Judge]]:
    """Return the judges of this package."""
    return [ToyJudge, Classifier, Chat]
