"""The built-in modifiers, registered through the same hook as anybody's."""

from alignzoo.composition import Modifier
from alignzoo.hookspecs import hookimpl
from alignzoo.modifiers.label_smoothing import LabelSmoothing
from alignzoo.modifiers.length_normalised import LengthNormalised
from alignzoo.modifiers.margin import Margin


@hookimpl
def register_modifiers() -> list[type[Modifier]]:
    """Name the three of this package."""
    return [LabelSmoothing, LengthNormalised, Margin]
