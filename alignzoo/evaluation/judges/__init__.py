"""The built-in judges, registered through the hook that plugins use."""

from alignzoo.evaluation.judges.answers import ExactMatch, Regex
from alignzoo.evaluation.judges.chat import Chat
from alignzoo.evaluation.judges.chat_score import ChatScore
from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.evaluation.judges.length import Length
from alignzoo.evaluation.judges.math_answers import Math
from alignzoo.evaluation.judges.reward_model import RewardModel
from alignzoo.evaluation.judges.toy import ToyJudge
from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.judge import Judge


@hookimpl
def register_judges() -> list[type[Judge]]:
    """Return the judges of this package."""
    return [ToyJudge, Classifier, RewardModel, Chat, ChatScore, ExactMatch, Regex, Math, Length]
