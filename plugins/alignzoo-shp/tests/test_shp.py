import json

import pytest
from alignzoo_shp import SHP

from alignzoo import Row, Skipped, UserError

POST = {
    "history": "Why is the sky blue?",
    "human_ref_A": "Scattering.",
    "human_ref_B": "Magic.",
    "labels": 1,
    "score_A": 9,
    "score_B": 3,
}


def read(path, *posts, **fields):
    (path / "shp.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    return list(SHP(path=str(path / "shp.jsonl"), **fields).read("train"))


def test_the_answer_with_more_votes_is_chosen(tmp_path):
    first, second = read(tmp_path, POST, POST | {"labels": 0, "score_A": 3, "score_B": 9})
    assert isinstance(first, Row)
    assert first.prompt == "\n\nHuman: Why is the sky blue?\n\nAssistant:"
    assert [c.text for c in first.completions] == [" Scattering.", " Magic."]
    assert [c.text for c in second.completions] == [" Magic.", " Scattering."]


def test_close_votes_are_left_out_and_counted(tmp_path):
    assert read(tmp_path, POST | {"score_B": 5}) == [Skipped("shp.jsonl:1", "votes too close")]
    assert isinstance(read(tmp_path, POST | {"score_B": 5}, min_score_ratio=1.5)[0], Row)


def test_a_missing_field_names_file_and_line(tmp_path):
    with pytest.raises(UserError, match=r"shp\.jsonl:1: no field 'labels'"):
        read(tmp_path, {k: v for k, v in POST.items() if k != "labels"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score_A": "9"}, "score_A is '9'; expected a whole number"),
        ({"score_B": None}, "score_B is None; expected a whole number"),
        ({"history": None}, "history is None; expected text"),
        ({"human_ref_B": 5}, "human_ref_B is 5; expected text"),
        ({"labels": 2}, r"labels is 2; expected 1 \(A is preferred\) or 0"),
    ],
)
def test_a_wrong_value_names_file_and_line_and_is_never_guessed(tmp_path, wrong, message):
    with pytest.raises(UserError, match=rf"shp\.jsonl:2: {message}"):
        read(tmp_path, POST, POST | wrong)


def test_empty_and_identical_answers_are_skipped_by_reason(tmp_path):
    rows = read(tmp_path, POST | {"human_ref_B": " "}, POST | {"human_ref_B": "Scattering."})
    assert [row.reason for row in rows] == ["empty completion", "chosen equals rejected"]


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        list(SHP(path=str(tmp_path / "none.jsonl")).read("train"))
