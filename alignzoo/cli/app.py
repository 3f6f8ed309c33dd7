"""The command `alignzoo`: its subcommands, their errors and exit codes.

Each subcommand is a module of its own, imported when it is used: `--help` needs neither torch nor pydantic.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from alignzoo import __version__
from alignzoo.core.distributed import launch
from alignzoo.core.errors import RunFailed, UserError, nearest
from alignzoo.core.signals import GracefulShutdown, Interrupted, stop_reported
from alignzoo.core.streams import close_streams, install_streams

COMMANDS = {
    "init": "Write a first recipe for a data file and a model.",
    "run": "Train a recipe and write its report.",
    "validate": "Check a recipe and its data, and print the plan.",
    "compare": "Train recipes side by side and draw a table with intervals.",
    "table": "Draw the table of finished comparisons or runs again.",
    "show": "Print a recipe with everything merged in, and where each value came from.",
    "list": "List what a recipe can name, or all about one name or key; `list plugins`.",
    "schema": "Print the JSON Schema of recipes, for editors.",
    "plot": "Draw loss and gradient weights of objectives.",
    "plugins": "Write a plugin: `new`, `check`.",
    "data": "Look at a recipe's data: `inspect RECIPE`.",
    "score": "Write every row's log-probs under policy and reference.",
    "eval": "Evaluate a finished run: data, metrics, judges, replies.",
    "judge": "Measure judges and runs on labeled preferences.",
    "chat": "Talk with a run in the terminal.",
    "generate": "Write a run's replies to the prompts of a file.",
    "export": "Write a run's policy as a Hugging Face folder: adapter or full weights.",
    "push": "Send a run's policy to the Hugging Face hub, with a model card.",
    "runs": "The runs there are: list, `diff`, `rm`.",
    "cache": "The reference log-probs and tokens on disk: ls, verify, prune.",
    "rollouts": "Print what a policy wrote during training, with rewards.",
    "report": "Draw the report of run folders again.",
}
MULTI_PROCESS = ("run", "score")
"""Commands that several processes may run as one job."""
OF_MACHINE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ESTALE,
)  # fmt: skip
"""Errors of the machine, not of the command."""
MOVED = {
    ("objectives", "show"): ["list"],
    ("objectives", "plot"): ["plot"],
    ("objectives",): ["list", "objectives"],
}
"""First words of a former command -> the words in their place."""


def _present_spelling(args: list[str]) -> list[str]:
    """The present spelling of a former command; empty for any other."""
    for count in (2, 1):
        if new := MOVED.get(tuple(args[:count])):
            return [*new, *args[count:]]
    return ["list", *args] if args in (["plugins"], ["plugins", "--json"]) else []


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"alignzoo.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if launch.launched() and args and args[0] in COMMANDS and args[0] not in MULTI_PROCESS:
            error = UserError(
                f"alignzoo {args[0]} is a command for one process, and this is one of {launch.size()}",
                expected=f"a launcher for {' and '.join(MULTI_PROCESS)} only; finished runs are not repeated",
            )
            launch.mark_reported_by_main(error)
            raise error
        if new := _present_spelling(args):
            raise UserError(f"`alignzoo {shlex.join(args)}` was renamed", expected=f"`alignzoo {shlex.join(new)}`")
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(
                f"there is no command '{args[0]}'",
                nearest=nearest(args[0], COMMANDS),
                hint="alignzoo --help lists them",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alignzoo")
@click.option("--no-plugins", is_flag=True, help="Run no third-party code: no installed plugins, no plugin files.")
def alignzoo(no_plugins: bool) -> None:
    """Align a language model with preferences.

    A recipe names the objective, the model and the data.

    alignzoo run recipes/dpo_hh.yaml objective.beta=0.2

    Exit codes: 0 success, 1 the run failed, 2 invalid input, 130, 143, 129 stopped by Ctrl-C,
    SIGTERM, SIGHUP.
    """
    if no_plugins:
        os.environ["ALIGNZOO_PLUGINS"] = "none"  # child processes inherit it


def main() -> None:
    """Run the command line and exit.

    Invalid input prints no traceback unless ALIGNZOO_TRACEBACK=1.
    """
    # torch's threads spin while they wait for each other, which slows a run severalfold beside another busy process.
    # torch reads the variable on import; no number depends on it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    install_streams()
    launch.end_with_parent()
    with GracefulShutdown(ends_process=True):
        code = close_streams(_exit_code())
    if "alignzoo.core.distributed.process_group" in sys.modules:
        sys.modules["alignzoo.core.distributed.process_group"].leave_process_group(code)
    sys.exit(code)


def _check_working_directory() -> None:
    """Raise UserError if the working directory was removed.

    Libraries end the process where there is none.
    """
    try:
        os.getcwd()
    except OSError:
        raise UserError("the working directory is gone", hint="cd to another folder") from None


def _exit_code() -> int:
    try:
        _check_working_directory()
        if note := launch.check_place():
            print(note, file=sys.stderr)
        result = alignzoo(standalone_mode=False)
        _warn_of_failed_plugins()
        return result if isinstance(result, int) else 0
    except UserError as error:
        return _report(error, [str(problem) for problem in error.problems], 2)
    except RunFailed as error:
        return _report(error, [str(error)], launch.LOST if launch.lost_peer(error) else 1)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort) as error:
        stop_reported()
        stop = error.__cause__ if isinstance(error, click.Abort) else error  # click raises its own from it
        if launch.rank() == 0:
            print(f"\n{stop or ''}".rstrip() or "\nstopped", file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else 130
    except OSError as error:
        if error.errno in OF_MACHINE:
            where = f"{error.filename}: " if error.filename else ""
            return _report(error, [f"{where}{os.strerror(error.errno).lower()}"], 1)
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        return _report(error, [f"{str(error.filename)[:60]}...: no valid file name ({os.strerror(error.errno)})"], 2)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception:
        if not launch.launched():
            raise
        traceback.print_exc()  # exit at once, without waiting for the other processes
        return 1


def _report(error: Exception, lines: list[str], code: int) -> int:
    """Print an error on stderr, unless another process of the job prints it."""
    if os.environ.get("ALIGNZOO_TRACEBACK"):
        traceback.print_exc()
    for line in lines if not launch.reported_elsewhere(error) else ():
        print(f"error: {line}", file=sys.stderr)
    return code


def _warn_of_failed_plugins() -> None:
    """Print one line if plugins failed to load, after a command that loaded them.

    A command that names only built-ins loads none.
    """
    if "alignzoo.registry.lookup" in sys.modules and "plugins" not in sys.argv[1:3]:
        failed = sys.modules["alignzoo.registry.lookup"].registry().failures()
        if failed:
            names = ", ".join(dict.fromkeys(info.package for info in failed))
            print(f"warning: not loaded: {names} (alignzoo list plugins shows why)", file=sys.stderr)
