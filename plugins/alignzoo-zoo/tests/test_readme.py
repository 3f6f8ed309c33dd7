"""The tables of README.md match the classes; `python tests/test_readme.py` writes them again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import test_peer_authors
import test_peer_halos
import test_peer_liger
import test_peer_trl
import yaml
from alignzoo_zoo import MODIFIERS, OBJECTIVES
from cases import BY_NAME

from alignzoo.interfaces.requirements import ScoredComponent

README = Path(__file__).parent.parent / "README.md"
DEFAULTS = Path(__file__).parents[3] / "docs" / "objectives_defaults.md"
START, END = "<!-- tables: tests/test_readme.py -->\n", "<!-- end of tables -->\n"


def tables() -> str:
    """By family, objectives and then modifiers, in the order of names."""
    return "\n".join([*_tables(OBJECTIVES, "{}"), *_tables(MODIFIERS, "Modifiers: {}")]) + "\n"


def _tables(classes: Sequence[type[ScoredComponent]], title: str) -> Iterator[str]:
    for family in sorted({cls.family for cls in classes}):
        yield f"\n### {title.format(family).capitalize()}\n\n| name | what it is | paper |\n|---|---|---|"
        for cls in sorted(classes, key=lambda cls: cls.name):
            if cls.family == family:
                yield f"| `{cls.name}` | {cls.__doc__.splitlines()[0].rstrip('.')} | {paper(cls)} |"


def paper(cls: type[ScoredComponent]) -> str:
    """A link to the first that the source names."""
    found = re.search(r"arXiv:(\d+\.\d+)", cls.source)
    return f"[{found[1]}](https://arxiv.org/abs/{found[1]})" if found else cls.source


def written(text: str) -> str:
    """The page with these tables."""
    before, _, rest = text.partition(START)
    return before + START + tables() + END + rest.partition(END)[2]


def test_the_tables_are_what_the_classes_say():
    assert README.read_text() == written(README.read_text())


def test_every_class_has_a_paper_a_family_and_a_first_line():
    for cls in (*OBJECTIVES, *MODIFIERS):
        assert cls.family, cls.name
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.source), cls.name
        assert cls.__doc__.splitlines()[0].endswith("."), cls.name
    for cls in OBJECTIVES:
        assert all(f"\n    {heading}: " in cls.__doc__ for heading in ("When", "Not when")), cls.name


@pytest.mark.skipif(not DEFAULTS.is_file(), reason=f"no {DEFAULTS}")
def test_the_page_on_defaults_lists_the_losses_that_were_compared():
    items = DEFAULTS.read_text().partition("## Losses compared numerically")[2].split("\n- ")[1:]
    listed = {item.partition(":")[0].split(" (")[0]: set(re.findall(r"`(\w+)`", item)) for item in items}
    compared = {
        "TRL": {case.name for case in test_peer_trl.CASES},
        "Liger-Kernel": {case.name for case in test_peer_liger.CASES},
        "Authors' code and other trainers": {case.name for case, _ in test_peer_authors.all_differences()},
        "HALOs": {halo.case.name for halo in test_peer_halos.HALOS},
    }
    assert listed == compared | {
        "Not compared with another implementation": set(BY_NAME) - set().union(*compared.values())
    }


def test_its_recipes_name_what_exists():
    """With fields that it takes."""
    modifiers = {cls.name: cls for cls in MODIFIERS}
    nodes = [yaml.safe_load(block)["objective"] for block in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.S)]
    assert len(nodes) == 2
    for node in (one for some in nodes for one in (some if isinstance(some, list) else [some])):
        for modifier in node.pop("modifiers", []):
            modifiers[modifier.pop("name")](**modifier)
        node.pop("weight", None)
        BY_NAME[node.pop("name")](**node)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
