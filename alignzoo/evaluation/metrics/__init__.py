"""The built-in metrics, registered through the hook that plugins use."""

from alignzoo.evaluation.metrics.entropy import Entropy
from alignzoo.evaluation.metrics.normalized_accuracy import NormalizedAccuracy
from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.metric import Metric


@hookimpl
def register_metrics() -> list[type[Metric]]:
    """Return the metrics of this package."""
    return [Entropy, NormalizedAccuracy]
