import pytest
from alignzoo_example import Hinge

from alignzoo.testing import ObjectiveTests, pair


class TestHinge(ObjectiveTests):
    objective = Hinge(beta=0.2)


@pytest.mark.parametrize(("margin", "loss"), [(0, 1), (5, 0.5), (10, 0), (50, 0), (-10, 2)])
def test_formula(margin, loss):
    assert Hinge(beta=0.1).loss(pair(margin, 0, ref_chosen=0, ref_rejected=0)).item() == pytest.approx(loss)
