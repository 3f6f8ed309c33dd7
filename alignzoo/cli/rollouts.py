"""`alignzoo rollouts`: print what a policy wrote during training."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="rollouts", short_help="Print what a policy wrote during training, with rewards.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=click.IntRange(1), help="A step; default: the last.")
@click.option("--prompts", type=click.IntRange(1), default=3, show_default=True, help="Number of prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print every draw as JSON lines.")
def command(run: Path, step: int | None, prompts: int, as_json: bool) -> None:
    """Print the draws that a step learned from, with rewards and advantages.

    RUN is a run folder, its name in the folder of runs, or a recipe.
    """
    from alignzoo.rollouts.browse import replies_of, rollout_of
    from alignzoo.training.records import Line, read_lines
    from alignzoo.training.runs import folder_named

    run = folder_named(run)
    number, figures = rollout_of(read_lines(run / "metrics.jsonl", Line), step, run)
    replies = replies_of(run, number)
    if as_json:
        for reply in replies:
            click.echo(json.dumps(reply, ensure_ascii=False))
        return
    known = ((name, figures.get(name)) for name in ("reward", "kl", "length"))
    words = [f"{name} {value:.3g}" for name, value in known if value is not None]
    click.echo(f"rollout {number}, first used in step {figures['step']}: {', '.join(words)}")
    rows = list(dict.fromkeys(reply["row"] for reply in replies))
    for row in rows[:prompts]:
        own = [reply for reply in replies if reply["row"] == row]
        click.echo(f"\n{row}\n{(own[0].get('prompt') or '').strip()}")
        for reply in own:
            scores = ", ".join("none" if score is None else f"{score:.3f}" for score in reply["scores"])
            if len(reply["scores"]) > 1:
                scores += ", left out" if reply["reward"] is None else f", reward {reply['reward']:.3f}"
            advantage = f", advantage {reply['advantage']:+.3f}" if "advantage" in reply else ""
            cut = "" if reply["finished"] else " (cut)"
            click.echo(f"  [{scores}{advantage}] {reply['reply']}{cut}")
    if len(rows) > prompts:
        click.echo(f"\n{len(rows) - prompts} more prompts: --prompts, or --json for all draws")
