"""The page of an online run: reward against KL, reward by prompt, and the draws themselves, step by step."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from alignzoo.report.rollouts import browser, plots, spaced
from alignzoo.report.run_page import write_report
from alignzoo.rollouts.folder import RolloutFolder

PROMPT = "\n\nHuman: a <b>bold</b> question?\n\nAssistant:"


@pytest.fixture
def run(tmp_path):
    """The folder of a run with 12 rollouts of 6 prompts, two draws each; the reward rises by 0.1 a rollout."""
    rollouts, lines = RolloutFolder(tmp_path / "rollouts", "f"), []

    def fits(arrays) -> bool:
        return True

    for number in range(12):
        texts = [
            {"row": f"row {prompt}", "number": n, "reply": f"reply {number} {prompt} {n}", "finished": n == 0,
             "scores": [value], "reward": value if (prompt, n) != (5, 1) else None}
            | ({} if n else {"prompt": PROMPT})
            for prompt in range(6) for n in range(2) for value in [number / 10 + prompt + n]
        ]  # fmt: skip
        rollouts.phase(number, "judged", lambda: {"raw": np.zeros((1, 12))}, fits, lambda arrays, texts=texts: texts)
        advantage = np.linspace(-1, 1, 12).reshape(6, 2)
        rollouts.phase(number, "scored", lambda advantage=advantage: {"advantage": advantage}, fits)
        lines.append({"kind": "rollout", "step": number + 1, "rollout": number, "reward": number / 10, "kl": number / 5,
                      "length": 8.0})  # fmt: skip
    lines += [{"kind": "eval", "step": step, "reward": 0.1 * step, "kl": 0.2 * step, "loss": 1.0} for step in (0, 12)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    return tmp_path


def lines(run) -> list[dict]:
    return json.loads((run / "lines.json").read_text())


def test_the_browser_has_evenly_spaced_rollouts_with_the_best_draw_first(run):
    views = browser(run, lines(run))
    assert [view["step"] for view in views] == [1, 3, 4, 6, 7, 9, 10, 12]
    last = views[-1]
    assert ([one["id"] for one in last["prompts"]], last["more"]) == (["row 0", "row 2", "row 3", "row 5"], 2)
    first = last["prompts"][0]
    assert (first["mean"], [draw["number"] for draw in first["draws"]]) == (pytest.approx(1.6), [1, 0])
    assert [draw["advantage"] for draw in first["draws"]] == pytest.approx([-1 + 2 / 11, -1])
    left_out = last["prompts"][-1]
    assert (left_out["mean"], left_out["draws"][-1]["reward"]) == (pytest.approx(6.1), None)


def test_a_rollout_that_is_gone_is_left_out(run):
    import shutil

    shutil.rmtree(run / "rollouts" / "000011")
    assert [view["step"] for view in browser(run, lines(run))] == [1, 3, 4, 6, 7, 9, 10]


def test_the_plots_have_the_points_of_the_records(run):
    (title, against), (other, _) = plots(run, lines(run))
    assert title.startswith("reward against KL")
    assert other.startswith("reward by prompt")
    marks = {name: re.search(rf'id="[^"]*{name}"', against) for name in ("PathCollection_1", "PathCollection_2")}
    assert all(marks.values())
    first, _ = against.split("PathCollection_2")
    assert first.count("<use ") - first.split("PathCollection_1")[0].count("<use ") == 12
    assert plots(run, lines(run)) == plots(run, lines(run))
    assert plots(run, [line for line in lines(run) if line["kind"] != "rollout" and "kl" not in line]) == []


def test_the_page_shows_texts_as_texts(run):
    page = write_report(run).read_text()
    assert "reply 11 5 0" in page
    assert "a &lt;b&gt;bold&lt;/b&gt; question?" in page
    assert "<b>bold" not in page
    assert page.count('<details class="rollout">') == 8
    assert "left out" in page
    assert "<script" not in page
    assert write_report(run).read_text() == page


def test_spaced_items_have_both_ends():
    assert spaced(range(5), 9) == [0, 1, 2, 3, 4]
    assert spaced(range(100), 4) == [0, 33, 66, 99]
