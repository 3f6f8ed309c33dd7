"""Published preference objectives for alignzoo, one file per family, on its public API."""

from alignzoo import Modifier, Objective, hookimpl
from alignzoo_zoo.attributes import ATTRIBUTES
from alignzoo_zoo.batch import BATCH
from alignzoo_zoo.divergence import DIVERGENCE, FDivergence
from alignzoo_zoo.guided import GUIDED
from alignzoo_zoo.length import LENGTH, LENGTH_MODIFIERS
from alignzoo_zoo.links import LINKS
from alignzoo_zoo.noise import DISPLACEMENT, NOISE
from alignzoo_zoo.pointwise import POINTWISE
from alignzoo_zoo.ranked import RANKED
from alignzoo_zoo.reference_free import REFERENCE_FREE
from alignzoo_zoo.reward_model import REWARD_MODELS
from alignzoo_zoo.safety import SAFETY
from alignzoo_zoo.scores import SCORES
from alignzoo_zoo.tied import TIED
from alignzoo_zoo.tokenwise import TOKENWISE
from alignzoo_zoo.triples import TRIPLES
from alignzoo_zoo.unpaired import UNPAIRED
from alignzoo_zoo.weighting import WEIGHTING, WEIGHTING_MODIFIERS

OBJECTIVES: list[type[Objective]] = [
    *NOISE, *DISPLACEMENT, *LINKS, *POINTWISE, *LENGTH, *DIVERGENCE, *WEIGHTING, *BATCH, *TOKENWISE,
    *SCORES, *SAFETY, *REFERENCE_FREE, *UNPAIRED, *RANKED, *REWARD_MODELS, *TIED, *GUIDED, *TRIPLES, *ATTRIBUTES,
]  # fmt: skip
MODIFIERS: list[type[Modifier]] = [*LENGTH_MODIFIERS, FDivergence, *WEIGHTING_MODIFIERS]


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """Return all objectives of this package."""
    return OBJECTIVES


@hookimpl
def register_modifiers() -> list[type[Modifier]]:
    """Return the changes that several objectives make to DPO, for any objective."""
    return MODIFIERS
