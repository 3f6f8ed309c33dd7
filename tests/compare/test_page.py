"""A comparison's page: everything on it, nothing asked of a network, nothing of a reply obeyed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from measured import Runs, about, comparison

from alignzoo.compare.table import build
from alignzoo.report.comparison.page import page
from alignzoo.report.comparison.plots import plots

pytestmark = pytest.mark.slow

SCRIPT = "<script>alert('x')</script><img src=http://example.com/x onerror=alert(1)>"


def html(entries, **more) -> str:
    table = build(about(**more), entries)
    return page(table, plots(table))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    runs = comparison(tmp_path_factory.mktemp("runs"))
    runs.fail("kto_hh", reason=f"the loss is not a number {SCRIPT}").add(
        "a$b$ & <c>", reply=f" {SCRIPT}", problem=SCRIPT
    )
    return html(runs.entries, command=f"alignzoo compare {SCRIPT}", name=f"losses {SCRIPT}")


def test_it_has_the_figures_the_pictures_the_replies_and_how_it_was_run(whole):
    for words in ("Held-out pairs", "accuracy (implicit reward) ↑", "beta=0.1, best of 3, 3 runs", "baseline", "Failed runs",
                  "UNEQUAL TUNING BUDGETS", "a reply 0", "the best reply 0", "Satterthwaite", "alignzoo compare",
                  "1,234 s in total", "torch 2.13.0", "seed 2", "Reward against KL", "Differences from dpo_hh"):  # fmt: skip
        assert words in whole, words
    assert whole.count("<svg") == 3


def test_nothing_is_asked_of_any_network_and_no_word_of_others_is_obeyed(whole):
    assert "<script" not in whole
    assert "<img" not in whole
    assert whole.count("&lt;script&gt;") >= 5  # name, command, failure, judge, reply
    assert not re.search(r"""(src|href|action)\s*=\s*["'](?!#)""", whole)
    assert not re.search(r"@import|url\((?!#)", whole)
    assert "default-src 'none'" in whole
    tags = re.sub(r"""\sxmlns(:\w+)?=["'][^"']*["']""", "", whole)
    assert not re.search(r"<[^>]*https?://", tags)


@pytest.mark.slow
def test_the_document_is_well_formed_and_its_ids_are_unique(whole):
    ids, open_tags = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            ids.extend(value for name, value in attributes if name == "id")
            if tag not in ("meta", "link", "br", "hr", "img", "input"):
                open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            ids.extend(value for name, value in attributes if name == "id")

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(whole)
    assert open_tags == []
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:)?href="#([^"]+)"', whole)) | set(re.findall(r"url\(#([^)]+)\)", whole)) <= set(
        ids
    )


def test_the_same_prompts_are_answered_side_by_side_by_every_row(whole):
    cards = re.findall(r'<div class="card sample">.*?</details>', whole, re.DOTALL)
    assert len(cards) == 4
    for n, card in enumerate(cards):
        assert f"question {n}?" in card
        assert re.findall(r"<b>(\w+_hh), seed 0", card) == ["sft_hh", "dpo_hh", "ipo_hh", "cdpo_hh"]


def test_a_difference_within_noise_has_no_color(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh").add("ipo_hh", accuracy=0.5).add("cdpo_hh", accuracy=0.8)
    text = html(runs.entries)
    row = re.search(r"<tr>(?:(?!<tr>).)*cdpo_hh.*?</tr>", text, re.DOTALL)[0]
    assert "by noise" in row
    assert "by good" not in row
    assert "by bad" in re.search(r"<tr>(?:(?!<tr>).)*ipo_hh.*?</tr>", text, re.DOTALL)[0]


def test_every_picture_is_valid_svg_that_reads_on_black_and_white_and_a_dollar_is_no_formula(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh").add("a$b$_<c>", accuracy=0.6)
    drawn = plots(build(about(), runs.entries))
    assert [plot.name for plot in drawn] == ["frontier", "differences", "grid"]
    for plot in drawn:
        ElementTree.fromstring(plot.svg)
        assert "a$b$_&lt;c&gt;" in plot.svg
        assert plot.png.startswith(b"\x89PNG")
        fills = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-f]{6})", plot.svg))
        assert not {"#000000", "#ffffff"} & fills


def test_without_kl_there_is_no_frontier_and_without_differences_no_forest(tmp_path):
    entries = Runs(tmp_path).add("dpo_hh", reward=None).entries
    (entries[0].figures.path / "samples.jsonl").write_text("")
    text = html(entries)
    assert text.count("<svg") == 1
    assert "Replies to the first test prompts" not in text


def test_the_frontier_is_of_accuracy_where_no_judge_says_a_reward(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh", reward=None).add("ipo_hh", reward=None)
    drawn = plots(build(about(), runs.entries))
    assert drawn[0].title == "accuracy against KL"
    assert "accuracy (implicit reward)" in drawn[0].svg


def test_a_pointer_over_a_marker_shows_its_values_without_a_script(tmp_path):
    runs = Runs(tmp_path).add("dpo_hh")
    for seed in range(2):
        runs.add('a<b> & "c"', seed, accuracy=0.6)
    table = build(about(), runs.entries)
    drawn = {plot.name: plot for plot in plots(table)}
    found = {
        name: ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}title") for name, plot in drawn.items()
    }
    words = {name: [title.text for title in titles] for name, titles in found.items()}
    assert 'a<b> & "c", as written: ' in words["frontier"][1]
    accuracy = table.cells['a<b> & "c"', "preference_accuracy"]
    assert f"accuracy (implicit reward) {accuracy.estimate.mean:.3f}\nseed 0: " in words["grid"][1]
    assert f'a<b> & "c", accuracy (implicit reward): {accuracy.difference.mean:+.3f} [' in words["differences"][0]
    text = page(table, list(drawn.values()))
    assert text.count('<g class="hover"><title>') == sum(map(len, words.values()))


def test_a_narrow_page_has_a_heading_at_each_figure_and_plots_that_can_be_read(whole):
    assert re.findall(r'<td class="n" data-column="margin"><span class="mean">', whole)
    for least, width in re.findall(r'<svg style="min-width: (\d+)px".*? width="([\d.]+)pt"', whole):
        assert int(least) == round(0.8 * float(width) * 4 / 3)
