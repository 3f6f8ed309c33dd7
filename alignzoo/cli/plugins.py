"""`alignzoo plugins`: what is installed, what it registers, what failed; `check` and `new` are for authors."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from alignzoo.cli.plugin_check import check
from alignzoo.cli.plugin_new import new


@click.group(name="plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List installed plugins with their versions, what each registers, and why one was not loaded.

    The exit code is 0 even then: a broken plugin breaks nothing but recipes that name it.
    """
    if ctx.invoked_subcommand is not None:
        return
    from alignzoo.registry.loading import OFF, PluginInfo
    from alignzoo.registry.lookup import registry

    infos = registry().plugins()
    if as_json:
        click.echo(json.dumps([asdict(info) for info in infos], indent=2))
        return
    if not infos:
        click.echo("no plugin is installed (the built-ins are part of alignzoo: alignzoo objectives)")
        return
    from alignzoo.cli.tables import print_table

    def row(info: PluginInfo) -> tuple[str, str, str, str]:
        offers = "; ".join(f"{kind} {', '.join(names)}" for kind, names in info.offers.items())
        status = "off" if info.problem == OFF else "not loaded" if info.problem else "ok"
        return info.package, info.version, status, info.problem or offers or "nothing"

    print_table(("PLUGIN", "VERSION", "STATUS", "OFFERS"), map(row, infos))


command.add_command(check)
command.add_command(new)
