"""The command line: one file a command, imported when it is used, so that `--help` needs neither torch nor pydantic."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from alignzoo import __version__
from alignzoo.core.distributed import launch
from alignzoo.core.errors import RunFailed, UserError, nearest
from alignzoo.core.redaction import RedactingStream, printable, redact
from alignzoo.core.signals import GracefulShutdown, Interrupted

COMMANDS = {
    "run": "Train what a recipe says, and report.",
    "validate": "Check a recipe and its data, and print the plan.",
    "compare": "Train recipes side by side, and draw a table that can be believed.",
    "table": "Draw the table of comparisons, or of measured runs, again, without training.",
    "show": "Print a recipe with everything merged in, and where each value came from.",
    "objectives": "List the objectives; `show NAME` tells all about one.",
    "list": "List everything that a recipe can name; `list NAME` tells all about one.",
    "plugins": "List installed plugins: what each registers, which failed and why.",
    "data": "Look at a recipe's data: `inspect RECIPE`.",
    "score": "Write every row's log-probs under policy and reference.",
    "export": "Write a run's policy as a Hugging Face folder: its adapter, or whole weights.",
    "cache": "The reference log-prob cache: ls, verify, prune.",
    "report": "Draw a run folder's report again.",
}
LAUNCHED = ("run", "score")
"""What several processes do as one."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"alignzoo.cli.{name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if launch.launched() and args and args[0] in COMMANDS and args[0] not in LAUNCHED:
            several = UserError(
                f"alignzoo {args[0]} takes one process, and this is one of {launch.size()}",
                expected=f"a launcher for {' and '.join(LAUNCHED)} alone; what they have finished is not done again",
            )
            launch.mark_reported_by_main(several)
            raise several
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
@click.option("--no-plugins", is_flag=True, help="Run no third-party code: no installed plugin, no file of a recipe.")
def alignzoo(no_plugins: bool) -> None:
    """Align a language model with preferences: an objective, a model and data, named in a recipe.

    alignzoo run recipes/dpo_hh.yaml objective.beta=0.2

    Exit codes: 0 done, 1 the run failed, 2 something is wrong with what was asked, 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """
    if no_plugins:
        os.environ["ALIGNZOO_PLUGINS"] = "none"  # for the processes that it starts too


def main() -> None:
    """Run the command line: a user's mistake is told without a traceback (ALIGNZOO_TRACEBACK=1 shows it)."""
    # torch's threads spin while they wait for each other: beside another busy process that makes a run several times
    # slower. It is read when torch is imported, and changes no number.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.stdout, sys.stderr = RedactingStream(sys.stdout), RedactingStream(sys.stderr)
    launch.end_with_parent()
    with GracefulShutdown():
        code = _exit_code()
    if "alignzoo.core.distributed.process_group" in sys.modules:
        sys.modules["alignzoo.core.distributed.process_group"].leave_process_group(code)
    sys.exit(code)


def _exit_code() -> int:
    stdout = sys.stdout
    try:
        result = alignzoo(standalone_mode=False)
        sys.stdout.flush()
        _warn_of_failed_plugins()
        return result if isinstance(result, int) else 0
    except UserError as error:
        return _tell(error, [str(problem) for problem in error.problems], 2)
    except RunFailed as error:
        return _tell(error, [str(error)], launch.LOST if launch.lost_peer(error) else 1)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort) as error:
        stop = error.__cause__ if isinstance(error, click.Abort) else error  # click puts its own in the place of it
        if launch.rank() == 0:
            print(f"\n{stop or ''}".rstrip() or "\nstopped", file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else 130
    except BrokenPipeError:
        return _nobody_reads_on()
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        return _tell(
            error, [f"{str(error.filename)[:60]}...: no file can be called so ({os.strerror(error.errno)})"], 2
        )
    except SystemExit as error:
        if sys.stdout is not stdout:  # click met a broken pipe: it has silenced stdout and asks for exit code 1
            return _nobody_reads_on()
        return error.code if isinstance(error.code, int) else 1
    except Exception:
        if not launch.launched():
            raise
        traceback.print_exc()  # and end at once: the other processes are not waited for
        return 1


def _tell(error: Exception, lines: list[str], code: int) -> int:
    """Tell the user, unless another process of the job does."""
    if os.environ.get("ALIGNZOO_TRACEBACK"):
        traceback.print_exc()
    for line in lines if not launch.reported_elsewhere(error) else ():
        print(f"error: {printable(redact(line))}", file=sys.stderr)
    return code


def _nobody_reads_on() -> int:
    """`alignzoo objectives | head -1` is no failure, and Python's last flush must not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _warn_of_failed_plugins() -> None:
    """One line, by any command that looked at plugins; one that named only built-ins has looked at none."""
    if "alignzoo.registry" in sys.modules and "plugins" not in sys.argv[1:2]:
        failed = sys.modules["alignzoo.registry"].registry().failures()
        if failed:
            names = ", ".join(dict.fromkeys(info.package for info in failed))
            print(f"warning: not loaded: {names} (alignzoo plugins tells why)", file=sys.stderr)
