"""Each rule of the registry, with fake distributions on a temporary path."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_plugins import GOOD, problems

import alignzoo
from alignzoo import get_objective
from alignzoo.core.errors import UserError
from alignzoo.registry.lookup import Registry


def test_a_plugin_is_found_and_attributed(install):
    install("alignzoo-mine", GOOD.format(name="mine"), requires="alignzoo>=0.2.0.dev0,<0.3")
    registry = Registry()
    cls = registry.find("objective", "mine")
    assert cls.name == "mine"
    assert registry.find("objective", "alignzoo-mine/mine") is cls
    origin = registry.origin(cls)
    assert (origin.package, origin.version, len(origin.code)) == ("alignzoo-mine", "1.0", 32)
    assert registry.plugins()[0].offers == {"objective": ["mine"]}
    assert "mine" in registry.known("objective")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nonexistent_library", "ModuleNotFoundError on import: No module named 'nonexistent_library'"),
        ("raise SystemExit(3)", "SystemExit on import: 3"),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): raise SystemExit(3)",
            "SystemExit in register_objectives: 3",
        ),
        ("def __dir__(): raise RuntimeError('no')", "RuntimeError when its hooks were inspected: no"),
        (
            GOOD.format(name="mine").replace(
                "return [Mine]", "return [Mine, type('Other', (Mine,), {'__doc__': 'x'})]"
            ),
            "objective 'mine' is registered twice",
        ),
        ("x = 1", "it registers nothing; expected a function marked @alignzoo.hookimpl"),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectivs(): return []",
            "hook register_objectivs is unknown; did you mean 'register_objectives'?",
        ),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(registry): return []",
            "hook register_objectives takes no argument 'registry'",
        ),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return 5",
            "register_objectives returned int; expected a list of classes",
        ),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return [dict]",
            "register_objectives returned <class 'dict'>, which is not a subclass of Objective",
        ),
        (
            "from alignzoo import hookimpl\n@hookimpl\ndef register_objectives(): return 1 / 0",
            "ZeroDivisionError in register_objectives: division by zero",
        ),
        (GOOD.format(name="Bad-Name"), "Mine.name is 'Bad-Name'; expected lower case letters, digits and underscores"),
        (GOOD.format(name="mine").replace('"""A loss for a test."""', ""), "Mine has no docstring"),
    ],
)
def test_a_broken_plugin_is_reported_in_our_words_and_breaks_nothing_else(install, code, message):
    install("alignzoo-broken", code)
    install("alignzoo-good", GOOD.format(name="good"))
    assert message in problems()["alignzoo-broken"]
    assert problems()["alignzoo-good"] == ""
    assert Registry().find("objective", "good").name == "good"
    assert Registry().find("objective", "dpo").name == "dpo"
    with pytest.raises(UserError) as error:
        Registry().find("objective", "nothing_like_it")
    assert "alignzoo-broken was not loaded" in str(error.value)


@pytest.mark.parametrize("requires", ["alignzoo<0.1", "alignzoo>=99", "Align_Zoo ; extra == 'x'"])
def test_a_plugin_for_another_version_is_rejected_before_it_is_imported(install, requires, tmp_path):
    witness = tmp_path / "imported"
    install("alignzoo-old", f"open({str(witness)!r}, 'w')\n" + GOOD.format(name="old"), requires=requires)
    found = problems()["alignzoo-old"]
    if "extra" in requires:
        assert found == ""
    else:
        wanted = requires.removeprefix("alignzoo")
        assert found == f"needs alignzoo{wanted}; this is alignzoo {alignzoo.__version__}"
        assert not witness.exists()


def test_a_name_of_two_plugins_is_rejected_when_it_is_used(install):
    install("alignzoo-one", GOOD.format(name="same"))
    install("alignzoo-two", GOOD.format(name="same"), entry="plugin")  # the same entry-point name too: both are loaded
    registry = Registry()
    assert problems() == {"alignzoo-one": "", "alignzoo-two": ""}
    with pytest.raises(
        UserError, match="'same' is offered by 2 plugins; expected alignzoo-one/same or alignzoo-two/same"
    ):
        registry.find("objective", "same")
    assert registry.find("objective", "alignzoo-two/same").__module__ == "alignzoo_two_module"
    assert {"alignzoo-one/same", "alignzoo-two/same"} <= set(registry.known("objective"))


def test_a_built_in_is_never_shadowed(install):
    install("alignzoo-shadow", GOOD.format(name="dpo"))
    registry = Registry()
    assert registry.find("objective", "dpo").__module__ == "alignzoo.objectives.builtin.dpo"
    assert registry.find("objective", "alignzoo-shadow/dpo").__module__ == "alignzoo_shadow_module"


def test_a_built_in_name_imports_no_plugin(install, tmp_path):
    """Installing a plugin never changes a run that does not name it: it is not even imported."""
    witness = tmp_path / "imported"
    install("alignzoo-loud", f"open({str(witness)!r}, 'w')\n" + GOOD.format(name="loud"))
    registry = Registry()
    registry.origin(registry.find("objective", "dpo"))
    registry.find("data source", "hh")
    assert not witness.exists()
    registry.find("objective", "loud")
    assert witness.exists()


@pytest.mark.parametrize(("value", "names"), [("", []), ("alignzoo-b", ["alignzoo-b"]), ("Alignzoo_A, alignzoo-b", ["alignzoo-a", "alignzoo-b"])])  # fmt: skip
def test_third_party_plugins_can_be_switched_off(install, monkeypatch, value, names):
    for letter in "ab":
        install(f"alignzoo-{letter}", GOOD.format(name=letter * 3))
    monkeypatch.setenv("ALIGNZOO_PLUGINS", value)
    infos = Registry().plugins()
    assert [info.package for info in infos if not info.problem] == names
    assert {info.problem for info in infos if info.package not in names} <= {"left out by ALIGNZOO_PLUGINS"}
    assert Registry().failures() == []
    if "alignzoo-a" not in names:
        with pytest.raises(UserError, match="alignzoo-a was not loaded: left out by ALIGNZOO_PLUGINS"):
            Registry().find("objective", "aaa")


def test_an_unknown_name_says_the_nearest_or_what_there_is_or_what_to_install():
    with pytest.raises(UserError, match="no objective is called 'dop'; did you mean 'dpo'"):
        Registry().find("objective", "dop")
    with pytest.raises(UserError, match="no objective is called 'xyzzy'; expected one of cdpo, dpo, ipo, sft"):
        Registry().find("objective", "xyzzy")
    with pytest.raises(UserError, match=r"no objective is called 'hinge'\n.*pip install alignzoo-example"):
        Registry().find("objective", "hinge")


def test_what_is_installed_and_failed_is_not_offered_for_installation(install):
    install("alignzoo-example", "import nonexistent_library")
    with pytest.raises(UserError) as error:
        Registry().find("objective", "hinge")
    assert "alignzoo-example was not loaded: ModuleNotFoundError" in str(error.value)
    assert "pip install" not in str(error.value)


@pytest.mark.parametrize("spelling", ["alignzoo-mine/mine", "Alignzoo_Mine/mine", "alignzoo.mine/mine"])
def test_packages_are_compared_as_pip_compares_them(install, spelling):
    install("Alignzoo_Mine", GOOD.format(name="mine"))
    assert Registry().find("objective", spelling).name == "mine"


@pytest.mark.parametrize(
    ("file", "text", "package", "message"),
    [
        ("METADATA", "Metadata-Version: 2.1\n", "(no name)", ""),
        (
            "METADATA",
            "Metadata-Version: 2.1\nName: alignzoo-hurt\nRequires-Dist: alignzoo >>> 3\n",
            "alignzoo-hurt",
            "InvalidRequirement in its metadata",
        ),
        ("METADATA", "Metadata-Version: 2.1\nName: alignzoo-hurt\nRequires-Dist: other >>> 3\n", "alignzoo-hurt", ""),
        ("entry_points.txt", "[alignzoo]\nplugin\n", "alignzoo-hurt", "in its entry_points.txt"),
    ],
)
def test_damaged_metadata_hurts_nobody_else(install, tmp_path, file, text, package, message):
    install("alignzoo-hurt", GOOD.format(name="hurt"))
    install("alignzoo-good", GOOD.format(name="good"))
    (tmp_path / "site" / "alignzoo_hurt-1.0.dist-info" / file).write_text(text)
    found = problems()
    assert found["alignzoo-good"] == ""
    assert message in next(problem for name, problem in found.items() if package in name)
    assert Registry().find("objective", "good").name == "good"


def test_two_entry_points_may_name_one_module(install, tmp_path):
    module = install("alignzoo-mine", GOOD.format(name="mine"))
    info = tmp_path / "site" / "alignzoo_mine-1.0.dist-info"
    (info / "entry_points.txt").write_text(f"[alignzoo]\na = {module}\nb = {module}\n")
    assert [(one.entry_point, one.problem) for one in Registry().plugins()] == [("a", ""), ("b", "")]
    assert Registry().find("objective", "mine").name == "mine"


def test_failures_are_known_once_plugins_were_looked_at(install, tmp_path):
    install("alignzoo-broken", "import nonexistent_library")
    file = tmp_path / "my_loss.py"
    file.write_text(GOOD.format(name="mine"))
    base = Registry()
    extended = base.with_files([file])
    extended.find("objective", "mine")
    assert base.failures() == extended.failures() == []
    with pytest.raises(UserError):
        extended.find("objective", "nothing_like_it")
    assert [info.package for info in base.failures()] == ["alignzoo-broken"]


def test_an_unpackaged_plugin_is_a_file(tmp_path):
    file = tmp_path / "my_loss.py"
    file.write_text(GOOD.format(name="mine"))
    registry = Registry().with_files([file])
    cls = registry.find("objective", "mine")
    assert registry.origin(cls).package == "my_loss.py"
    changed = tmp_path / "other.py"
    changed.write_text(GOOD.format(name="mine") + "# changed\n")
    again = Registry().with_files([changed])
    assert again.origin(again.find("objective", "mine")).code != registry.origin(cls).code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:\n", r"my_loss\.py:1: SyntaxError on import"),
        ("x = 1\ny = x / 0\n", r"my_loss\.py:2: ZeroDivisionError on import"),
        (GOOD.format(name="dpo"), r"my_loss\.py: objective 'dpo' exists already; expected another name"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(tmp_path, code, message):
    file = tmp_path / "my_loss.py"
    file.write_text(code)
    with pytest.raises(UserError, match=message):
        Registry().with_files([file])
    with pytest.raises(UserError, match=r"my_los\.py: no such plugin file; did you mean 'my_loss.py'"):
        Registry().with_files([Path(tmp_path / "my_los.py")])


def test_get_objective_tells_what_is_wrong():
    assert get_objective("dpo", beta=0.2).beta == 0.2
    with pytest.raises(UserError, match="dpo has no field 'bet'; did you mean 'beta'"):
        get_objective("dpo", bet=0.2)
    with pytest.raises(UserError, match=r"dpo.beta: .*greater than 0 \(got -1\)"):
        get_objective("dpo", beta=-1)
