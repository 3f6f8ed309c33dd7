"""The built-in metrics, registered through the same hook as anybody's."""

from alignzoo.hookspecs import hookimpl
from alignzoo.metric import Metric
from alignzoo.metrics.entropy import Entropy
from alignzoo.metrics.normalised_accuracy import NormalisedAccuracy


@hookimpl
def register_metrics() -> list[type[Metric]]:
    """Name the two of this package."""
    return [Entropy, NormalisedAccuracy]
