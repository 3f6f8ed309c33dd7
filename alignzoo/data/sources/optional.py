"""Import packages that only some files need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from alignzoo.core.errors import UserError


def need(module: str, what: str) -> Any:
    """Import an optional module. Raises UserError with the install command if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise UserError(f"reading {what} requires the package {package}", hint="pip install 'alignzoo[data]'") from None
