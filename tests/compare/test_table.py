"""The table of a comparison: chosen on one split and reported on another, and no winner within noise."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from measured import DATA, REPLIES, ROWS, START, VALIDATION, Runs, about, comparison
from rich.cells import cell_len
from rich.console import Console
from safetensors.numpy import load_file, save_file

from alignzoo.compare.results import write_results
from alignzoo.compare.scales import SHARE, estimate, paired
from alignzoo.compare.statistics import student
from alignzoo.compare.table import build
from alignzoo.core.errors import UserError
from alignzoo.report.comparison.caption import caption
from alignzoo.report.comparison.markdown import markdown
from alignzoo.report.comparison.notes import notes
from alignzoo.report.comparison.plots import pareto, spread
from alignzoo.report.comparison.terminal import terminal_table
from alignzoo.report.comparison.write import as_csv, as_json, write_all

TEST = ROWS - VALIDATION


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "runs")


def loud(table) -> str:
    return "\n".join(line.text for line in caption(table) if line.loud)


def said(table) -> str:
    return "\n".join(note.text for note in notes(table))


def best(table, key: str) -> list[str]:
    return [row.label for row in table.rows if (cell := table.cells.get((row.label, key))) and cell.best]


def terminal(table, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(table))
    return console.export_text()


def rewrite(entry, **arrays) -> None:
    """Put other figures in an entry's place."""
    path = entry.figures.path / "examples.safetensors"
    save_file(load_file(path) | {name: np.asarray(value, np.float64) for name, value in arrays.items()}, path)
    entry.figures.__dict__.pop("examples", None)


# What is chosen, and what is reported.


def test_validation_chooses_and_test_is_reported_where_they_disagree(runs):
    runs.add("dpo_hh", 0, {"objective.beta": 0.1}, validation=0.9, accuracy=0.6)
    runs.add("dpo_hh", 0, {"objective.beta": 0.5}, validation=0.7, accuracy=0.95)
    table = build(about(), runs.entries)
    assert table.rows[0].chosen.values == {"objective.beta": 0.1}
    assert table.cells["dpo_hh", "preference_accuracy"].estimate.mean == pytest.approx(0.6, abs=0.06)
    assert "beta=0.1, best of 2" in markdown(table)


def test_seeds_that_only_the_chosen_point_has_do_not_choose(runs):
    """The second seed would bring the chosen point below the other, which never had it."""
    runs.add("dpo_hh", 0, {"objective.beta": 0.1}, validation=0.8)
    runs.add("dpo_hh", 1, {"objective.beta": 0.1}, validation=0.2)
    runs.add("dpo_hh", 0, {"objective.beta": 0.5}, validation=0.7)
    row = build(about(), runs.entries).rows[0]
    assert row.chosen.values == {"objective.beta": 0.1}
    assert row.seeds == "2"


def test_another_figure_may_choose(runs):
    for beta, metric in ((0.1, 1.0), (0.5, 2.0)):
        runs.add("dpo_hh", 0, {"objective.beta": beta}, accuracy=0.9 - beta, metrics={"quality": metric})
    assert build(about(), runs.entries).rows[0].chosen.values == {"objective.beta": 0.1}
    table = build(about(), runs.entries, select="quality")
    assert table.rows[0].chosen.values == {"objective.beta": 0.5}
    assert "highest mean quality" in markdown(table)


def test_of_two_points_that_validate_alike_the_first_is_chosen(runs):
    for beta in (0.5, 0.1):
        runs.add("dpo_hh", 0, {"objective.beta": beta})
    assert build(about(), runs.entries).rows[0].chosen.values == {"objective.beta": 0.5}


def test_a_point_at_which_a_seed_failed_is_not_flattered_by_the_seeds_that_are_left(runs):
    for seed in (0, 1):
        runs.add("dpo_hh", seed, {"objective.beta": 0.1}, accuracy=0.7)
    runs.add("dpo_hh", 0, {"objective.beta": 0.01}, accuracy=0.9).fail("dpo_hh", 1, {"objective.beta": 0.01})
    table = build(about(), runs.entries)
    assert table.rows[0].chosen.values == {"objective.beta": 0.1}
    assert "beta=0.01: seed 1 failed (no memory left)" in said(table)


def test_a_grid_that_no_validation_row_can_choose_from_is_rejected_and_not_chosen_on_test(runs):
    for beta in (0.1, 0.5):
        runs.add("dpo_hh", 0, {"objective.beta": beta})
    with pytest.raises(
        UserError, match=r"no validation row has a figure for 'gold.reward'.*expected one of preference_acc"
    ):
        build(about(), runs.entries, select="gold.reward")
    for entry in runs.entries:
        rewrite(entry, test=np.ones(ROWS))
    with pytest.raises(UserError, match="expected data with a validation split"):
        build(about(), runs.entries)


# How sure a figure is.


def test_a_figure_is_the_mean_over_seeds_and_test_rows_and_a_difference_is_paired(tmp_path):
    runs = comparison(tmp_path)
    table = build(about(), runs.entries)

    def values(label, beta):
        found = [e for e in runs.entries if e.label == label and e.point.get("objective.beta", beta) == beta]
        return np.stack([e.figures.examples["preference_accuracy"][VALIDATION:] for e in found])

    dpo, ipo = values("dpo_hh", 0.1), values("ipo_hh", 0.1)
    cell = table.cells["ipo_hh", "preference_accuracy"]
    assert cell.estimate == estimate(ipo, SHARE)
    assert cell.difference == paired(ipo, dpo, SHARE)
    assert cell.difference.se < cell.estimate.se  # what is hard is hard for both
    assert (cell.estimate.seeds, cell.estimate.examples) == (3, TEST)
    assert table.cells["dpo_hh", "preference_accuracy"].difference is None
    assert table.cells["ipo_hh", "kl"].estimate.examples == REPLIES


def test_rows_in_another_order_are_paired_by_their_ids(runs):
    runs.add("dpo_hh").add("ipo_hh")
    straight = build(about(), runs.entries).cells["ipo_hh", "margin"].difference
    entry = runs.entries[1]
    turned = {name: array[::-1].copy() for name, array in entry.figures.examples.items()}
    rewrite(entry, **turned)
    entry.figures.about["ids"].reverse()
    again = build(about(), runs.entries).cells["ipo_hh", "margin"].difference
    assert again.mean == pytest.approx(straight.mean)
    assert again.se == pytest.approx(straight.se)


def test_bold_is_only_what_is_better_than_every_other_row_by_more_than_noise(runs):
    runs.add("dpo_hh", accuracy=0.80).add("ipo_hh", accuracy=0.81).add("cdpo_hh", accuracy=0.5)
    table = build(about(), runs.entries)
    assert table.cells["ipo_hh", "preference_accuracy"].difference.mean > 0
    assert best(table, "preference_accuracy") == []
    bold = r"\| {} +\| as written +\| 1 +\| \*\*0\."
    assert not re.search(bold.format("ipo_hh"), markdown(table))
    table = build(about(), runs.add("kto_hh", accuracy=0.95).entries)
    assert best(table, "preference_accuracy") == ["kto_hh"]
    assert re.search(bold.format("kto_hh"), markdown(table))


def test_rows_that_tie_share_no_bold(runs):
    runs.add("dpo_hh", accuracy=0.9).add("ipo_hh", accuracy=0.9).add("cdpo_hh", accuracy=0.5)
    table = build(about(), runs.entries)
    assert best(table, "preference_accuracy") == []
    assert table.cells["ipo_hh", "preference_accuracy"].difference.mean == 0
    assert not table.cells["ipo_hh", "preference_accuracy"].apart


def test_a_row_alone_has_won_nothing(runs):
    table = build(about(), runs.add("dpo_hh").entries)
    assert not any(cell.best for cell in table.cells.values())


def test_what_has_no_better_direction_is_never_bold_and_lower_is_better_where_the_arrow_points_down(runs):
    for seed in range(3):
        runs.add("dpo_hh", seed, kl=2.0, seconds=90.0).add("ipo_hh", seed, kl=9.0, seconds=30.0)
    table = build(about(), runs.entries)
    assert table.cells["ipo_hh", "kl"].apart
    assert best(table, "kl") == best(table, "margin") == []
    assert best(table, "seconds") == ["ipo_hh"]


def test_a_share_stays_between_0_and_1_and_all_right_is_not_certainty(runs):
    runs.add("dpo_hh", accuracy=2.0).add("ipo_hh", accuracy=-1.0)
    table = build(about(), runs.entries)
    width = student(TEST - 1) ** 2 / (TEST + student(TEST - 1) ** 2)  # Wilson's
    for label, low, high in (("dpo_hh", 1 - width, 1.0), ("ipo_hh", 0.0, width)):
        found = table.cells[label, "preference_accuracy"].estimate
        assert (found.low, found.high) == pytest.approx((low, high))


def test_rows_and_replies_of_one_prompt_are_one_cluster_in_every_figure_and_difference(runs):
    runs.add("dpo_hh", accuracy=0.7).add("ipo_hh", accuracy=0.8)
    apart = build(about(), runs.entries)
    for entry in runs.entries:
        entry.figures.about["groups"] = [f"prompt {n // 10}" for n in range(ROWS)]
    table = build(about(), runs.entries)
    for key in ("preference_accuracy", "margin", "chosen_log_ratio", "kl", "gold.reward", "gold.over_chosen"):
        cell, n = table.cells["ipo_hh", key], REPLIES if key in ("kl",) or key.startswith("gold") else TEST
        assert (cell.estimate.clusters, cell.difference.clusters, cell.estimate.examples) == (n // 10, n // 10, n)
        assert cell.estimate.mean == pytest.approx(apart.cells["ipo_hh", key].estimate.mean)
    assert f"over {TEST} test pairs of {TEST // 10} prompts" in markdown(table)
    assert re.search(r"gold: reward.*\n.*\n.*\]\\? ?\(\d+%\)", markdown(table))  # four prompts
    assert "is its simulated coverage" in markdown(table)


def test_accuracy_of_labeled_completions_has_the_interval_of_an_area(runs):
    runs.add("kto_hh").add("bco_hh")
    good = np.arange(ROWS) % 2 == 0
    dice = np.random.default_rng(0)
    for entry in runs.entries:
        rewrite(entry, preference_accuracy=dice.random(ROWS), desirable=good, undesirable=~good)
    cell = build(about(baseline="kto_hh"), runs.entries).cells["bco_hh", "preference_accuracy"]
    placed, own = runs.entries[1].figures.examples["preference_accuracy"][VALIDATION:], good[VALIDATION:]
    delong = np.sqrt(sum(placed[kind].var(ddof=1) / kind.sum() for kind in (own, ~own)))
    assert cell.estimate.se == pytest.approx(delong, rel=0.02)
    assert cell.estimate.mean == pytest.approx(placed.mean(), abs=0.01)
    assert cell.difference.se > delong
    assert "undesirable" not in markdown(build(about(baseline="kto_hh"), runs.entries))


def test_costs_are_compared_by_ratio(runs):
    for seed in range(3):
        runs.add("dpo_hh", seed, seconds=60.0).add("ipo_hh", seed, seconds=30.0)
    table = build(about(), runs.entries)
    cell = table.cells["ipo_hh", "seconds"]
    assert cell.estimate.mean == pytest.approx((30 * 31 * 32) ** (1 / 3))
    assert cell.relative
    assert cell.difference.mean == pytest.approx((30 * 31 * 32 / 60 / 61 / 62) ** (1 / 3) - 1)
    assert re.search(r"\| -49\.\d% ", markdown(table))
    assert all(cell.estimate.low > 0 for (_, key), cell in table.cells.items() if key == "seconds")


def test_margins_in_other_units_are_not_compared(runs):
    runs.add("dpo_hh").add("ipo_hh").add("cdpo_hh")
    for entry, beta in zip(runs.entries, (0.1, 0.5, 0.1), strict=True):
        entry.figures.about["reward"] = [["log_ratio", beta]]
    table = build(about(), runs.entries)
    assert table.cells["ipo_hh", "margin"].difference is None
    assert table.cells["cdpo_hh", "margin"].difference is not None
    assert "Margins of ipo_hh are not compared with those of dpo_hh" in markdown(table)
    assert table.cells["ipo_hh", "margin"].other_unit
    assert not table.cells["ipo_hh", "preference_accuracy"].other_unit
    differences = next(grid for by, grid in grids(markdown(table)) if by and "margin" in grid[0])
    at = differences[0].index("margin")
    assert {row[0]: row[at] for row in differences[1:]}["ipo_hh"] == "other unit"
    assert "other unit" not in {row[0]: row[at] for row in differences[1:]}["cdpo_hh"]


def test_no_plot_has_margins_in_several_units(runs):
    """Without an accuracy the plot of all configurations is of what chose among them."""
    runs.add("dpo_hh").add("ipo_hh")
    table = build(about(), runs.entries, select="margin")
    table = replace(table, columns=tuple(column for column in table.columns if column.key != "preference_accuracy"))
    assert spread(table) is not None
    for entry, beta in zip(runs.entries, (0.1, 0.5), strict=True):
        entry.figures.about["reward"] = [["log_ratio", beta]]
    assert spread(table) is None


def test_margins_in_other_units_choose_no_grid_point(runs):
    for beta in (0.1, 0.5):
        runs.add("dpo_hh", 0, {"objective.beta": beta})
    for entry, beta in zip(runs.entries, (0.1, 0.5), strict=True):
        entry.figures.about["reward"] = [["log_ratio", beta]]
    with pytest.raises(UserError, match=r"'margin' of dpo_hh is in another unit at beta=0\.5 than at beta=0\.1"):
        build(about(), runs.entries, select="margin")


def test_one_seed_is_said_to_speak_of_one_model(runs):
    runs.add("dpo_hh").add("ipo_hh")
    assert "With one seed an interval describes this model" in markdown(build(about(), runs.entries))
    runs.add("dpo_hh", 1)
    assert "A single run: its intervals describe this model" in said(build(about(), runs.entries))


def test_what_a_single_run_cost_has_no_interval(runs):
    runs.add("dpo_hh").add("ipo_hh")
    table = build(about(), runs.entries)
    assert re.search(r"\| dpo_hh +\| 60.0 +\|", markdown(table))
    figures = as_json(table)["rows"][0]["figures"]["seconds"]
    assert (figures["mean"], figures["low"], figures["high"]) == (60.0, None, None)


def test_the_digits_of_a_column_are_those_of_the_rows_that_are_compared(runs):
    runs.add("sft_hh", kl=0.0, metrics={"quality": 900.0}, fingerprint=START, start=None)
    runs.add("dpo_hh", kl=0.0123, metrics={"quality": 0.5}).add("ipo_hh", kl=0.0456, metrics={"quality": 0.6})
    text = markdown(build(about(), runs.entries))
    assert re.search(r"\| dpo_hh +\| 0\.01\d\d \[0\.01\d\d, ", text)
    assert re.search(r"\| 900\.0\d\d \[", text)


# What others start from.


def test_a_start_is_one_run_for_every_seed_of_the_others(tmp_path):
    table = build(about(), comparison(tmp_path).entries)
    cell = table.cells["sft_hh", "preference_accuracy"]
    assert (cell.estimate.seeds, cell.difference.seeds) == (1, 3)
    assert "a single run: its intervals are over examples alone" in said(table)
    assert table.cells["sft_hh", "seconds"].difference is None  # another stage
    assert best(table, "pairs_per_second") == []


def test_the_first_row_that_is_no_start_is_the_baseline_unless_another_is_named(tmp_path):
    entries = comparison(tmp_path).entries
    assert build(about(baseline=None), entries).baseline == "dpo_hh"
    assert build(about(), entries, baseline="sft_hh").baseline == "sft_hh"
    with pytest.raises(UserError, match=r"no row 'dpo_h'.*did you mean 'dpo_hh'"):
        build(about(), entries, baseline="dpo_h")
    with pytest.raises(UserError, match=r"no figure 'margn'.*did you mean 'margin'"):
        build(about(), entries, select="margn")


# What went wrong.


def test_a_row_some_of_whose_seeds_failed_is_of_the_rest_and_says_so(runs):
    for seed in range(3):
        runs.add("dpo_hh", seed)
    runs.add("ipo_hh", 0).fail("ipo_hh", 1, reason="no memory left").add("ipo_hh", 2)
    table = build(about(), runs.entries)
    cell = table.cells["ipo_hh", "preference_accuracy"]
    assert (cell.estimate.seeds, cell.difference.seeds) == (2, 2)
    assert "seed 1 failed (no memory left): the figures are of the other 2 runs." in said(table)
    assert re.search(r"\| ipo_hh¹ +\| as written +\| 2 of 3 ", markdown(table))


def test_a_row_that_failed_is_shown_with_its_reason_everywhere(runs):
    runs.add("dpo_hh").fail("kto_hh", reason="the loss is not a number in step 3")
    table = build(about(), runs.entries)
    for text in (markdown(table), as_csv(table), json.dumps(as_json(table)), terminal(table)):
        assert "the loss is not a number in step 3" in text
    assert re.search(r"\| kto_hh¹ +\| as written +\| 0 of 1 +\| failed +\| —", markdown(table))


def test_a_table_of_failures_alone_is_still_a_table(runs, tmp_path):
    table = write_all(tmp_path / "out", build(about(), runs.fail("dpo_hh").fail("ipo_hh").entries))
    assert table.columns == ()
    assert "no memory left" in (tmp_path / "out" / "report.html").read_text()
    assert "no memory left" in terminal(table)


def test_a_judge_that_failed_leaves_empty_cells_and_a_footnote(runs):
    runs.add("dpo_hh").add("ipo_hh", problem="OSError: no such server")
    table = build(about(), runs.entries)
    assert "Judge gold failed: OSError: no such server" in said(table)
    assert re.search(r"\| ipo_hh +\| —¹ +\| —¹ +\| —¹ +\|", markdown(table))
    assert ("ipo_hh", "gold.reward") not in table.cells


def test_a_judge_that_failed_in_every_run_keeps_one_column(runs):
    runs.add("dpo_hh", problem="OSError: no").add("ipo_hh", problem="OSError: no")
    table = build(about(), runs.entries)
    assert [column.key for column in table.columns if column.group == "judges"] == ["gold.reward"]
    assert [note.labels for note in notes(table)] == [("dpo_hh", "ipo_hh")]  # said once


def test_numbers_that_are_none_are_left_out_for_every_seed_and_a_column_of_none_is_no_column(runs):
    runs.add("dpo_hh", 0, metrics={"quality": 1.0}).add("dpo_hh", 1, metrics={"quality": 1.0})
    holes = np.where(np.arange(ROWS) % 2, np.nan, 2.0)
    rewrite(runs.entries[1], quality=holes)
    table = build(about(), runs.entries)
    assert table.cells["dpo_hh", "quality"].estimate.examples == TEST // 2
    assert table.column("length_normalized_accuracy") is None
    rewrite(runs.entries[1], quality=np.where(np.arange(ROWS) == VALIDATION, np.inf, 2.0))
    assert np.isfinite(build(about(), runs.entries).cells["dpo_hh", "quality"].estimate.mean)


def test_a_recipes_metric_called_as_a_figure_of_the_replies_is_another_column(runs):
    table = build(about(), runs.add("dpo_hh", metrics={"entropy": 3.0}).entries)
    assert table.cells["dpo_hh", "metric.entropy"].estimate.mean == pytest.approx(3.05, abs=0.02)
    assert table.cells["dpo_hh", "entropy"].estimate.mean == 1.5


# What is not comparable.


def test_unequal_tuning_budgets_are_said_and_equal_ones_are_not(tmp_path, runs):
    table = build(about(), comparison(tmp_path).entries)
    assert "UNEQUAL TUNING BUDGETS: dpo_hh 3, ipo_hh 3, cdpo_hh 1 configurations." in loud(table)
    runs.add("dpo_hh").add("ipo_hh")
    assert loud(build(about(), runs.entries)) == ""


def test_steps_that_differ_are_said(runs):
    table = build(about(), runs.add("dpo_hh").add("ipo_hh", steps=300).entries)
    assert "STEPS DIFFER: dpo_hh 600 steps of 16 rows; ipo_hh 300 steps of 16 rows." in loud(table)


def test_replies_drawn_in_other_ways_are_said(runs):
    runs.add("dpo_hh").add("ipo_hh", sampling={"temperature": 0.0})
    assert "SAMPLING SETTINGS DIFFER" in loud(build(about(), runs.entries))
    assert "ipo_hh: temperature 0.0" in loud(build(about(), runs.entries))


@pytest.mark.parametrize(("other", "words"), [({"data": "0ther" * 6}, "DATA"), ({"start": None}, "STARTS")])
def test_different_data_or_starts_are_rejected_or_else_said_loudly(runs, other, words):
    runs.add("dpo_hh").add("orpo_hh", **other)
    with pytest.raises(
        UserError, match=rf"different {words.lower()}: dpo_hh \(.*orpo_hh \([^\n]*\n.*--allow-different-data"
    ):
        build(about(), runs.entries)
    table = build(about(allow_different_data=True), runs.entries)
    assert f"DIFFERENT {words}" in loud(table)
    assert f"> **DIFFERENT {words}" in markdown(table)
    assert f"DIFFERENT {words}" in terminal(table)


def test_a_start_and_what_starts_from_it_belong_together(runs):
    runs.add("sft_hh", fingerprint=START, start=None).add("dpo_hh")
    assert loud(build(about(), runs.entries)) == ""


def test_different_rows_have_no_difference(runs):
    runs.add("dpo_hh").add("ipo_hh", data="0ther" * 6, first_id=1000)
    table = build(about(allow_different_data=True), runs.entries)
    assert table.cells["ipo_hh", "preference_accuracy"].difference is None


def test_two_runs_that_answer_one_question_are_rejected(runs):
    with pytest.raises(UserError, match="two runs of dpo_hh, as written, with seed 0"):
        build(about(), runs.add("dpo_hh").add("dpo_hh").entries)


# What is written.


def grids(text: str) -> list[tuple[bool, list[list[str]]]]:
    """The tables of a markdown text: whether it is one of differences, and its cells."""
    found, lines, by = [], [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            lines.append(line)
        elif lines:
            assert len({cell_len(one) for one in lines}) == 1, "not aligned"
            rows = [re.split(r"(?<!\\)\|", one)[1:-1] for one in lines if "| --" not in one]
            found.append((by, [[cell.strip() for cell in row] for row in rows]))
            lines, by = [], False
        by = by or line.startswith("Difference from")
    return found


def test_csv_and_json_agree_with_the_markdown(tmp_path):
    runs = comparison(tmp_path)
    table = build(about(), runs.entries)
    figures = {(row["recipe"], row["column"]): row for row in csv.DictReader(io.StringIO(as_csv(table)))}
    described = json.loads(json.dumps(as_json(table), allow_nan=False))
    of_json = {row["label"]: row for row in described["rows"]}
    heads = {column.head: column for column in table.columns}
    seen = 0
    for by, grid in grids(markdown(table))[:-1]:
        for label, *cells in grid[1:]:
            for head, text in zip(grid[0][1:], cells, strict=True):
                if head not in heads or text == "—":
                    continue
                label, key = label.rstrip("¹²"), heads[head].key
                row, json_cell = figures[label, key], of_json[label]["figures"][key]
                mean = re.match(r"(?:≈ )?\**([-+]?[\d.,]+)", text)[1]
                number = float(row["difference"] if by else row["mean"])
                number *= 100 if "%" in text.partition("[")[0] else 1
                decimals = len(mean.partition(".")[2])
                assert float(mean.replace(",", "")) == pytest.approx(number, abs=0.51 * 10**-decimals)
                assert float(row["mean"]) == json_cell["mean"]
                assert (row["best"] == "true") == json_cell["best"]
                assert (text.count("**") == 2) == (json_cell["best"] and not by)
                assert ("≈" in text) == (by and row["difference_distinguishable"] == "false")
                seen += 1
    assert seen > 100
    assert of_json["dpo_hh"]["chosen"] == {"objective.beta": 0.1}
    assert len(of_json["dpo_hh"]["points"]) == of_json["dpo_hh"]["configurations_tried"] == 3
    run = of_json["dpo_hh"]["points"][0]["runs"][2]
    assert run["seed"] == 2
    assert set(run["test"]) > {"preference_accuracy", "kl", "gold.reward"}
    margins = runs.entries[3].figures.examples["margin"]
    assert run["validation"]["margin"] == pytest.approx(margins[:VALIDATION].mean())
    assert run["test"]["margin"] == pytest.approx(margins[VALIDATION:].mean())


@pytest.mark.slow
def test_the_same_entries_give_the_same_bytes(tmp_path):
    entries = comparison(tmp_path / "runs").entries
    for name in ("one", "two"):
        write_results(tmp_path / name, about(), entries)
        write_all(tmp_path / name)
    written = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert written == sorted(["results.json", "table.md", "table.csv", "table.json", "report.html"] + [
        f"{plot}.{kind}" for plot in ("frontier", "differences", "grid") for kind in ("png", "svg")
    ])  # fmt: skip
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_words_of_others_break_no_cell(runs):
    table = build(about(baseline=None), runs.add("a|b *c* <b>").fail("d", reason="x | y\n| z |").entries)
    grids(markdown(table))
    assert r"a\|b \*c\* \<b\>" in markdown(table)
    assert r"x \| y \| z \|" in markdown(table)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_terminals_table_fits_and_says_where_the_rest_is(tmp_path, width):
    table = build(about(), comparison(tmp_path).entries)
    text = terminal(table, width)
    assert max(map(len, text.splitlines())) <= min(width, 120) or width == 200
    assert re.search(r"\d+\s+more\s+figures", text)
    assert re.search(r"0\.8\d\d", text)


def test_data_and_start_are_named_in_the_caption(tmp_path):
    text = markdown(build(about(), comparison(tmp_path).entries))
    for words in (DATA[:8], START[:8], "torch 2.13.0", "200 test pairs and 40 replies", "3 seeds (0, 1, 2)",
                  "100 validation rows", "600 steps of 16 rows", "alignzoo compare dpo_hh ipo_hh --seeds 3"):  # fmt: skip
        assert words in text


def test_the_front_is_what_nothing_else_beats_in_both():
    assert pareto([(3, 3), (1, 1), (2, 0.5), (2, 2), (4, 2.9), (1, 0.5)]) == [(1, 1), (2, 2), (3, 3)]
