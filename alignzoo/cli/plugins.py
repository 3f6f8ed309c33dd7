"""`alignzoo plugins`: create (`new`) and check (`check`) a plugin, for its author.

`alignzoo list plugins` lists the installed ones.
"""

from __future__ import annotations

import click

from alignzoo.cli.plugin_check import check
from alignzoo.cli.plugin_new import new


@click.group(name="plugins")
def command() -> None:
    """Write a plugin: `new` creates a package, `check` runs the conformance kit."""


command.add_command(check)
command.add_command(new)
