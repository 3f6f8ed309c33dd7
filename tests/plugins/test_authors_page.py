"""The steps of docs/plugins.md, "Ten minutes", in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from jobs import python

from alignzoo.testing import CHECKS

PAGE = Path(__file__).parent.parent.parent / "docs" / "plugins.md"
FILES = ["my_loss.py", "mine.yaml", "tests/test_my_loss.py", "pyproject.toml"]


@pytest.mark.slow
def test_every_step_works(tmp_path):
    work, site = tmp_path / "work", tmp_path / "site"
    work.mkdir()
    steps = PAGE.read_text().partition("## Ten minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", steps, flags=re.M | re.S)
    names, output = iter(FILES), ""
    for language, text in blocks:
        if language != "sh":
            file = work / next(names)
            assert f"`{file.relative_to(work)}`" in steps
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            continue
        for line in text.splitlines():
            done = python(*_words(line, site), folder=work, ALIGNZOO_PLUGINS=None, PYTHONPATH=str(site)).wait()
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            output += done.stdout
    assert next(names, None) is None
    for words in (
        "objective          my_loss(beta=0.2)",
        f"{len(CHECKS)} passed",
        "alignzoo-my-loss",
        "max(0, 1 - beta h)",
        "my_loss(beta=0.1)",
    ):
        assert words in output, words


def _words(line: str, site: Path) -> list[str]:
    """The line's words after `python`: as written, but offline, and installed beside this Python rather than into it."""
    words = shlex.split(line)
    if words[0] == "pip":
        quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
        return ["-m", *words, *quiet, "--target", str(site)]
    return words[1:] if words[0] == "python" else ["-m", *words]
