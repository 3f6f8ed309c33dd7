"""A class of a notebook or a script is identified by its source and by all that it uses."""

from __future__ import annotations

import linecache
import sys
from types import ModuleType

import pytest

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.registry.in_memory import code_in_memory
from alignzoo.registry.lookup import registry

CELL = '''
import math
import torch
from torch.nn import functional as F
from alignzoo import Field, Objective

SCALE = {scale}
NAMES = ["a", "b"]

def scaled(value):
    return {factor} * value

class Mine(Objective):
    """My loss."""

    name = "mine"
    reference = "sequence"
    beta: float = Field({beta}, gt=0, description="scale")

    def implicit_reward(self, scored):
        return SCALE * len(NAMES) * scored.log_ratio

    def loss(self, pair):
        margin = self.implicit_reward(pair.chosen) - self.implicit_reward(pair.rejected)
        return -F.logsigmoid(scaled(self.beta * margin)) + math.pi * 0
'''
USUAL = {"scale": "1.0", "factor": "2", "beta": "0.1"}


def cell(text: str, name: str = "__main__") -> dict:
    """What a notebook does with a cell: the source is known to `linecache`, and the module has no file."""
    file = f"<cell {abs(hash(text))}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    names = {"__name__": name}
    exec(compile(text, file, "exec"), names)
    return names


@pytest.fixture
def main(monkeypatch):
    """A main module without a file, as in a notebook."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


def mine(**values) -> type:
    return cell(CELL.format(**USUAL | values))["Mine"]


def test_the_same_cell_is_the_same_class_and_any_change_another(main):
    first = code_in_memory(mine())
    assert code_in_memory(mine()) == first
    changed = [mine(scale="1.1"), mine(factor="3"), mine(beta="0.2")]
    assert len({first, *map(code_in_memory, changed)}) == 4


def test_what_it_does_not_use_is_no_part_of_it(main):
    other = CELL.format(**USUAL) + "\nOTHER = 3\ndef unused():\n    return OTHER\n"
    assert code_in_memory(cell(other)["Mine"]) == code_in_memory(mine())


def test_a_value_that_changed_after_the_cell_ran_counts(main):
    names = cell(CELL.format(**USUAL))
    before = code_in_memory(names["Mine"])
    names["NAMES"].append("c")
    assert code_in_memory(names["Mine"]) != before


def test_a_base_of_the_same_notebook_counts(main):
    more = "\nclass Other(Mine):\n    '''More.'''\n    name = 'other'\n"
    found = {code_in_memory(cell(CELL.format(**USUAL | {"factor": factor}) + more)["Other"]) for factor in "23"}
    assert len(found) == 2


def test_a_tensor_among_the_globals_is_refused(main):
    with pytest.raises(UserError, match="the code of Mine can't be identified: it uses SCALE, a Tensor") as error:
        code_in_memory(mine(scale="torch.ones(2)"))
    assert "plugins" in error.value.problems[0].hint


def test_code_without_a_source_is_refused(main):
    names = {"__name__": "__main__"}
    exec(CELL.format(**USUAL), names)
    with pytest.raises(UserError, match="its source is not there"):
        code_in_memory(names["Mine"])


def test_a_class_of_a_module_counts_by_the_files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for n, factor in enumerate("23"):
        (tmp_path / f"losses_{n}.py").write_text(CELL.format(**USUAL | {"factor": factor}))
        module = __import__(f"losses_{n}")
        codes.append(code_in_memory(module.Mine))
    assert codes[0] != codes[1]


def test_a_registry_knows_the_class_and_a_recipe_names_it(main):
    cls = mine()
    known = registry().with_classes([cls])
    assert known.find("objective", "mine") is cls
    assert (known.in_memory, known.has(cls), registry().has(cls)) == ([cls], True, False)
    sections = {"objective": cls(beta=0.4), "model": {"path": "a/b"}, "data": "toy",
                "train": {"optimizer": {"name": "sgd", "learning_rate": 1}}}  # fmt: skip
    first = load_recipe(sections, classes=[cls])
    assert load_recipe(first).fingerprint == first.fingerprint
    assert load_recipe(sections, classes=[mine(factor="3")]).fingerprint != first.fingerprint
    with pytest.raises(UserError, match="no objective is called 'mine'"):
        load_recipe(sections)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class A(Objective):\n    name = 'a'\n    def loss(self, x):\n        return 0\n", "has no docstring"),
        ("class A(Objective):\n    '''A.'''\n    name = 'dpo'\n    def loss(self, x):\n        return 0\n", "exists"),
        ("class A:\n    pass\n", "is no component"),
    ],
)
def test_a_class_that_no_plugin_could_register_is_refused(main, text, said):
    cls = cell(f"from alignzoo import Objective\n{text}")["A"]
    with pytest.raises(UserError, match=said):
        registry().with_classes([cls])


@pytest.mark.parametrize(
    ("above", "fields", "loss"),
    [
        ("def twice(f):\n    @functools.wraps(f)\n    def more(x):\n        return {} * f(x)\n    return more\n"
         "@twice\ndef h(x):\n    return x\n", "", "h(pair)"),
        ("h = times({})\n", "", "h(pair)"),
        ("g1, g2 = times(1), times(2)\nh = g{}\n", "", "g1(1) + g2(1) + h(1)"),
        ("h = dict(a={}).get\n", "", "h('a')"),
        ("S = {}\n", "    _scale: float = S\n", "self._scale"),
        ("S = {}\n", "    _scale: ClassVar = Fraction(S, 3)\n", "self._scale"),
        ("S = {}\n", "    @functools.lru_cache\n    def scale(self):\n        return S\n", "self.scale()"),
        ("S = {}\nclass Kind(Enum):\n    A = S\n    B = 3\n", "", "Kind.A.value"),
        ("@dataclass\nclass Settings:\n    scale: int = {}\n", "", "Settings().scale"),
        ("@torch.no_grad()\ndef h(x):\n    return {} * x\n", "", "np.exp(h(torch.relu(pair)))"),
    ],
    ids=["wrapper", "made in a file", "other name", "method of a value", "private", "class variable", "cached", "enum",
         "dataclass", "library's wrapper"],
)  # fmt: skip
def test_what_the_source_does_not_say_counts(main, tmp_path, monkeypatch, above, fields, loss):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_in_a_file", raising=False)
    (tmp_path / "made_in_a_file.py").write_text("def times(k):\n    return lambda x: k * x\n")
    head = ("import functools\nimport numpy as np\nimport torch\nfrom dataclasses import dataclass\n"
            "from enum import Enum\nfrom fractions import Fraction\nfrom typing import ClassVar\n"
            "from made_in_a_file import times\nfrom alignzoo import Objective\n")  # fmt: skip
    body = (
        f'class A(Objective):\n    """A."""\n    name = "a"\n{fields}    def loss(self, pair):\n        return {loss}\n'
    )
    first, again, other = (code_in_memory(cell(head + above.format(n) + body)["A"]) for n in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("value", ["torch.nn.Linear(2, 1)", "[].append.__self__.__class__", "print"])
def test_weights_of_a_library_are_refused_and_its_functions_are_not(main, value):
    names = cell(f'import torch\nfrom alignzoo import Objective\nh = {value}\nclass A(Objective):\n    """A."""\n'
                 '    name = "a"\n    def loss(self, pair):\n        return h(pair)\n')  # fmt: skip
    if "Linear" in value:
        with pytest.raises(UserError, match="it uses h, a Linear, which has no plain value"):
            code_in_memory(names["A"])
    else:
        assert code_in_memory(names["A"])
