import math

import pytest
from alignzoo_readability import Flesch


def test_the_formula_on_a_sentence_counted_by_hand():
    """Six words of one syllable each, one sentence."""
    assert Flesch().scores(["p"], ["The cat sat on the mat."])[0] == pytest.approx(206.835 - 1.015 * 6 - 84.6)


def test_long_words_are_harder_and_an_empty_reply_has_no_score():
    easy, hard = Flesch().scores(["p", "p"], ["We go home.", "Organizational considerations necessitate deliberation."])
    assert easy > hard
    assert math.isnan(Flesch().scores(["p"], ["..."])[0])


def test_it_prefers_what_is_easier():
    judge = Flesch()
    assert judge.prefers(["p"] * 2, ["We go.", "We go."], ["Institutional regulation.", "We go."]) == [1.0, 0.5]
