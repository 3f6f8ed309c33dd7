"""The built-in modifiers, registered through the hook that plugins use."""

from alignzoo.interfaces.hookspecs import hookimpl
from alignzoo.interfaces.modifier import Modifier
from alignzoo.objectives.modifiers.label_smoothing import LabelSmoothing
from alignzoo.objectives.modifiers.length_normalization import LengthNormalization
from alignzoo.objectives.modifiers.margin import Margin


@hookimpl
def register_modifiers() -> list[type[Modifier]]:
    """Return label smoothing, length normalization and the margin."""
    return [LabelSmoothing, LengthNormalization, Margin]
