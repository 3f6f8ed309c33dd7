"""`alignzoo plot`: curves of objectives, and a clear error where there can be none."""

from __future__ import annotations

import re
import runpy
import struct
import xml.etree.ElementTree as ElementTree
from itertools import groupby

import numpy as np
import pytest
from checkout import ROOT
from click.testing import CliRunner
from zoo import OBJECTIVES

from alignzoo.cli.plot import command
from alignzoo.core.errors import UserError
from alignzoo.interfaces.objective import Objective
from alignzoo.registry.lookup import registry

DOCS = ROOT / "docs" / "objectives"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(*arguments):
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    if result.exception:
        raise result.exception
    return result


def words(path):
    return [text.text for text in ElementTree.parse(path).iter(f"{SVG}text")]


class Broken(Objective):
    """Can't be drawn."""

    name = "broken"
    family = "link functions"

    def loss(self, pair):
        """Raises."""
        raise RuntimeError('<no> "luck" at all')


@pytest.fixture
def whole_zoo(monkeypatch):
    monkeypatch.setattr(registry(), "known", lambda kind: OBJECTIVES | {"broken": Broken})


def test_an_svg_has_a_panel_for_each_name(tmp_path):
    result = drawn("ipo", "dpo", "-o", tmp_path / "two.svg")
    said = words(tmp_path / "two.svg")
    assert said.index("ipo") < said.index("dpo")  # as they were named
    assert said.count("link functions") == 1
    assert "cdpo" not in said
    assert "−60" in said
    assert f"{tmp_path / 'two.svg'}: 2 objectives" in result.output


def test_the_curve_in_the_svg_is_the_loss(tmp_path):
    """Points of DPO's curve, in a scale that its two ends give, against its formula between -60 and 60."""
    drawn("dpo", "-o", tmp_path / "one.svg")
    paths = ElementTree.parse(tmp_path / "one.svg").iter(f"{SVG}path")
    line = next(path.get("d") for path in paths if path.get("clip-path") and "#3b7dd8" in path.get("style", ""))
    x, y = np.array(re.findall(r"([\d.]+) ([\d.]+)", line), dtype=float).T
    assert 10 < len(x) < 100  # as many as it takes to look smooth
    h = np.linspace(-60, 60, 50)
    share = np.interp(h, 120 * (x - x[0]) / (x[-1] - x[0]) - 60, (y - y[0]) / (y[-1] - y[0]))
    loss = np.log1p(np.exp(-0.1 * h))
    assert share == pytest.approx((loss[0] - loss) / (loss[0] - loss[-1]), abs=0.005)


def test_a_png_is_as_wide_as_its_columns(tmp_path):
    sizes = []
    for columns in (3, 4):
        path = tmp_path / f"{columns}.png"
        drawn("sft", "dpo", "ipo", "cdpo", "--columns", columns, "-o", path)
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(struct.unpack(">II", data[16:24]))
    (narrow, high), (wide, low) = sizes
    assert wide > 1.2 * narrow
    assert high > 1.5 * low


@pytest.mark.slow
def test_a_page_needs_nothing_from_anywhere(tmp_path):
    drawn("dpo", "sft", "-o", tmp_path / "zoo.html")
    page = (tmp_path / "zoo.html").read_text()
    assert "-log sigmoid(beta h)" in page
    assert "arXiv:2305.18290" in page
    assert page.count("<svg") == 2
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page)
    assert not re.search(r"<(?:script|link|img|iframe)\b", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_the_same_objectives_give_the_same_bytes(tmp_path, suffix):
    for n in "12":
        drawn("dpo", "-o", tmp_path / f"{n}{suffix}")
    assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_the_whole_zoo_comes_by_family_and_says_what_it_could_not_draw(tmp_path, whole_zoo, suffix):
    result = drawn("-o", tmp_path / f"zoo{suffix}")
    assert f"{len(OBJECTIVES)} objectives" in result.output
    assert 'not drawn: broken: RuntimeError: <no> "luck" at all' in result.output
    assert (tmp_path / f"zoo{suffix}").stat().st_size < 10_000 * len(OBJECTIVES)
    if suffix == ".html":
        assert "&lt;no&gt;" in (tmp_path / "zoo.html").read_text()
        return
    said = words(tmp_path / "zoo.svg")
    names = [word for word in said if word in OBJECTIVES]
    assert set(names) == set(OBJECTIVES)
    assert any(re.fullmatch(r"0\.\d\d\d", word) for word in said)  # coordinates are rounded, labels are not
    families = [family for family, _ in groupby(OBJECTIVES[name].family for name in names)]
    assert len(families) == len(set(families))
    assert names[0] == "dpo"
    assert families[-1] == "reward models"


def test_the_pictures_in_the_docs_have_the_whole_zoo():
    """One for each family, with its objectives and no other; `python docs/generate.py --draw` draws them."""
    catalogue = runpy.run_path(str(ROOT / "docs" / "generate.py"))["catalogue"]("objective")
    families = {}
    for cls in catalogue:
        families.setdefault(f"{cls.family.replace(' ', '-')}.svg", set()).add(cls.name)
    assert {path.name for path in DOCS.iterdir()} == set(families)
    for file, names in families.items():
        assert set(words(DOCS / file)) & {cls.name for cls in catalogue} == names, file
        assert (DOCS / file).stat().st_size < 150_000


def test_an_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no objective is called 'dop'") as caught:
        drawn("ipo", "dop", "-o", tmp_path / "x.svg")
    assert caught.value.problems[0].nearest == "dpo"
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(("name", "said"), [("zoo.gif", "'.gif' is no image format"), ("zoo", "has no suffix")])
def test_only_three_formats_are_drawn(tmp_path, name, said):
    with pytest.raises(UserError, match=said) as caught:
        drawn("dpo", "-o", tmp_path / name)
    assert ".svg, .png, .html" in caught.value.problems[0].expected


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_a_file_that_can_not_be_written_is_named(tmp_path, suffix):
    (tmp_path / "file").write_text("")
    taken = tmp_path / f"folder{suffix}"
    taken.mkdir()
    for path in (tmp_path / "file" / f"zoo{suffix}", taken):
        with pytest.raises(UserError) as caught:
            drawn("dpo", "-o", path)
        assert caught.value.problems[0].where == str(path)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
