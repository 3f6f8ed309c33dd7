"""The built-in modifiers, registered through the same hook as anybody's."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.modifier import Modifier
from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.objectives.modifiers.margin import Margin


@hookimpl
def register_modifiers() -> list[type[Modifier]]:
    """Name the three of this package."""
    return [LabelSmoothing, LengthNormalization, Margin]
