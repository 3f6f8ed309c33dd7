"""`alignzoo list`: objectives and modifiers by family, what each needs, and everything about one name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT
from jobs import command

ZOO = ROOT / "plugins" / "alignzoo-zoo" / "alignzoo_zoo"
METADATA = "Metadata-Version: 2.1\nName: alignzoo-zoo\nVersion: 0.1.0\nRequires-Dist: alignzoo>=0.2.0.dev0,<0.3\n"
BUILT_IN = ["cdpo", "dpo", "ipo", "sft"]
MODIFIERS = ["label_smoothing", "length_normalization", "margin"]


def cli(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess:
    """With a folder of packages, or with no plugin at all."""
    environment = {"PYTHONPATH": str(site), "ALIGNZOO_PLUGINS": None} if site else {"ALIGNZOO_PLUGINS": ""}
    return command("list", *arguments, **environment).wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The zoo as pip would leave it, without building it."""
    target = tmp_path_factory.mktemp("site")
    (target / "alignzoo_zoo").symlink_to(ZOO, target_is_directory=True)
    info = target / "alignzoo_zoo-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[alignzoo]\nzoo = alignzoo_zoo\n")
    return target


@pytest.fixture(scope="module")
def listed(site):
    """Name -> entry of `alignzoo list --json` with the zoo: objectives, then modifiers."""
    entries = json.loads(cli("--json", site=site).stdout)
    return {one["name"]: one for one in entries if one["kind"] in ("objective", "modifier")}


@pytest.mark.slow
def test_objectives_come_by_family_and_then_the_modifiers(listed):
    entries = list(listed.values())
    kinds = [one["kind"] for one in entries]
    assert kinds == sorted(kinds, reverse=True)
    for kind in ("objective", "modifier"):
        order = [(one["family"], one["name"]) for one in entries if one["kind"] == kind]
        assert order == sorted(order)
    assert set(BUILT_IN) < {one["name"] for one in entries if one["kind"] == "objective"}
    assert set(MODIFIERS) < {one["name"] for one in entries if one["kind"] == "modifier"}


@pytest.mark.slow
def test_every_entry_is_complete(listed):
    for one in listed.values():
        assert one["what"].endswith("."), one["name"]
        assert all(one[key] for key in ("description", "source", "equation", "needs", "package")), one["name"]
        assert one["paper"] or one["name"] in ("cdpo", "label_smoothing"), one["name"]
        assert all(field["description"] for field in one["parameters"]), one["name"]
    assert all(one["family"] for one in listed.values() if one["kind"] == "objective")
    assert listed["dpo"]["package"].startswith("alignzoo 0")
    assert listed["kto"]["package"] == "alignzoo-zoo 0.1.0"


NEEDS = {
    "dpo": "pairs, cached reference",
    "sft": "chosen completions, no reference",
    "simpo": "pairs, no reference",
    "odpo": "pairs, cached reference, column score",
    "ld_dpo": "pairs, cached reference by token",
    "sampo": "pairs, cached reference by token, random numbers",
    "wpo": "pairs, cached reference, log_collision_prob of each token",
    "tdpo2": "pairs, live reference, forward_kl of each token",
    "tr_dpo": "pairs, moving reference",
    "aot": "pairs, cached reference, whole batch",
    "beta_dpo": "pairs, cached reference, whole batch, state, random numbers",
    "kto": "labeled completions, cached reference, whole batch, mismatched completions",
    "bco": "labeled completions, cached reference, whole batch, state",
    "infonca": "ranked lists, cached reference, column score",
    "rrhf": "ranked lists, no reference",
    "bradley_terry_margin": "pairs, scalar head, column margin",
    "label_smoothing": "pairs",
    "length_normalization": "pairs or labeled completions or ranked lists or chosen completions, cached reference",
    "length_desensitization": "pairs, cached reference by token",
    "wpo_weighting": "pairs, log_collision_prob of each token",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_what_each_needs_is_said(listed, name):
    assert listed[name]["needs"] == NEEDS[name]


@pytest.mark.slow
def test_what_each_declares_is_in_the_json(listed):
    kto, weight = listed["kto"], listed["wpo_weighting"]
    assert (kto["data"], kto["reference"], kto["scope"], kto["mismatched"]) == ("unpaired", "sequence", "batch", True)
    assert (weight["data"], weight["changes_log_ratio"], weight["statistics"]) == (
        ["pair"],
        False,
        ["log_collision_prob"],
    )
    assert listed["bco"]["state"]
    assert not listed["kto"]["state"]


@pytest.mark.slow
def test_the_table_has_a_line_for_each(site, listed):
    objectives, modifiers = cli("objectives", site=site).stdout, cli("modifier", site=site).stdout
    heads = ["NAME", "FAMILY", "PAPER", "NEEDS", "FROM"]
    assert modifiers.splitlines()[0].split() == heads
    assert objectives.splitlines()[2].split() == heads
    for name, one in listed.items():
        part = objectives if one["kind"] == "objective" else modifiers
        line = next(line for line in part.splitlines() if line.split()[:1] == [name])
        assert one["family"] in line
        assert one["paper"] in line
    line = next(line for line in objectives.splitlines() if line.startswith("dpo "))
    assert "link functions" in line
    assert "2305.18290 Rafailov et al. 2023" in line
    assert "pairs, cached reference" in line


@pytest.mark.slow
def test_objectives_stand_under_the_data_that_one_has(site, listed):
    """Each under one heading; and each with when to use it and when not."""
    groups = [group.split("\n\n", 1) for group in cli("objectives", site=site).stdout.split("You have ")[1:]]
    found = {}
    for heading, table in groups:
        found[heading] = {line.split()[0] for line in table.splitlines() if line[:1].strip()} - {"NAME"}
    objectives = {name for name, one in listed.items() if one["kind"] == "objective"}
    assert set().union(*found.values()) == objectives
    assert sum(map(len, found.values())) == len(objectives)
    for name, words in {
        "dpo": "pairs", "tdpo2": "pairs", "rebel": "scores", "kto": "labels alone", "pl_dpo": "a list", "sft": "good",
    }.items():  # fmt: skip
        assert name in next(names for heading, names in found.items() if heading.startswith(words))
    assert [name for name in objectives if not (listed[name]["when"] and listed[name]["not_when"])] == []


def test_without_plugins_there_are_the_built_ins():
    known = json.loads(cli("--json").stdout)
    assert [one["name"] for one in known if one["kind"] == "objective"] == BUILT_IN
    assert [one["name"] for one in known if one["kind"] == "modifier"] == MODIFIERS
    assert {one["family"] for one in known if one["kind"] == "objective"} == {
        "label noise", "link functions", "reference-free",
    }  # fmt: skip


@pytest.mark.slow
def test_show_tells_all_about_an_objective(site, listed):
    text = cli("kto", site=site).stdout
    for words in (
        "objective kto: a Kahneman-Tversky value",
        "family    unpaired",
        "source    Ethayarajh et al. 2024, arXiv:2402.01306",
        "equation  desirable: l_D (1 - sigmoid(beta (r - z0)))",
        "needs     labeled completions, cached reference, whole batch, mismatched completions",
        "constant  the KL estimate z0 is a constant of each step",
        "package   alignzoo-zoo 0.1.0",
        "desirable_weight = 1.0  (number, > 0)",
        "objective: {name: kto, beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0}",
    ):
        assert words in text
    assert "constant" not in cli("simpo", site=site).stdout
    assert json.loads(cli("kto", "--json", site=site).stdout) == [listed["kto"]]


@pytest.mark.slow
def test_show_tells_all_about_a_modifier(site, listed):
    text = cli("wpo_weighting", site=site).stdout
    for words in (
        "needs     pairs, log_collision_prob of each token",
        "constant  ",
        "clamp = True  (boolean)",
        "objective: {name: dpo, modifiers: [{name: wpo_weighting, clamp: true}]}",
    ):
        assert words in text
    assert json.loads(cli("margin", "--json", site=site).stdout) == [listed["margin"]]


def test_a_kind_may_be_several_words_and_a_name_may_be_of_several_kinds():
    sources = json.loads(cli("data", "sources", "--json").stdout)
    assert {one["kind"] for one in sources} == {"data source"}
    assert {one["name"] for one in sources} > {"hh", "files", "toy"}
    assert json.loads(cli("data-source", "--json").stdout) == sources
    assert [one["kind"] for one in json.loads(cli("toy", "--json").stdout)] == ["data source", "judge"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dop", "no objective is called 'dop'; did you mean 'dpo'?"),
        ("length_normalizaton", "no modifier is called 'length_normalizaton'; did you mean 'length_normalization'?"),
        ("hinge", "no objective is called 'hinge'"),
        ("hinge", "pip install alignzoo-example"),
        ("objectivs", "nothing is called 'objectivs'; did you mean 'objective"),
    ],
)
def test_a_misspelled_name_of_any_kind_has_the_nearest(name, words):
    done = cli(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
