"""Run a function as a user that owns nothing: root may read everything, and a test of permissions is then none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignzoo.core.door import in_child

NOBODY = 65534


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that others may read and write, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def as_another_user(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a child: of root, a child without rights. Errors are returned as [class, text]."""

    def call() -> Any:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            return function()
        except Exception as error:
            return [type(error).__name__, str(error)]

    return in_child("another user", call)
