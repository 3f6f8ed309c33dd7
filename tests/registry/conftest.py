"""Fake distributions on a temporary path, and no others: whatever else is installed is not looked at."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from alignzoo.registry import loading


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install("alignzoo-mine", code, ...)`: a distribution as pip would leave it, importable in this test alone."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("ALIGNZOO_PLUGINS", raising=False)
    monkeypatch.setattr(loading, "distributions", lambda: metadata.distributions(path=[str(site)]))
    before = set(sys.modules)

    def make(package: str, code: str, entry: str = "plugin", requires: str = "", version: str = "1.0") -> str:
        module = package.replace("-", "_") + "_module"
        (site / f"{module}.py").write_text(code)
        info = site / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{needs}")
        (info / "entry_points.txt").write_text(f"[alignzoo]\n{entry} = {module}\n")
        return module

    yield make
    for name in set(sys.modules) - before:
        if name.endswith("_module"):
            del sys.modules[name]
