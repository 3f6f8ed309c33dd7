"""RSO's hinge loss as an alignzoo plugin."""

from alignzoo import Field, Objective, Pair, hookimpl


class Hinge(Objective):
    """RSO's hinge loss on the normalized margin, which is zero from h = 1 / beta."""

    name = "hinge"
    source = "Liu et al. 2023 (RSO), arXiv:2309.06657, equation 9 (hinge-norm)"
    equation = "max(0, 1 - beta h)"

    beta: float = Field(0.1, gt=0, description="strength of the KL constraint; the paper calls it gamma")

    def loss(self, pair: Pair):
        return (1 - self.beta * pair.margin).relu()


@hookimpl
def register_objectives():
    return [Hinge]
