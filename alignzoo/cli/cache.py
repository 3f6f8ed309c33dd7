"""`alignzoo cache`: what the reference cache holds, whether it is intact, and how to make it smaller."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import click


@click.group(name="cache", short_help="The reference log-prob cache: ls, verify, prune.")
def command() -> None:
    """Look after the reference log-prob cache (ALIGNZOO_CACHE, or ~/.cache/alignzoo)."""


def _entries() -> list[dict[str, Any]]:
    from alignzoo.paths import cache_root
    from alignzoo.refcache import caches, read_shard

    entries = []
    for folder in caches(cache_root()):
        shards = {path: read_shard(path) for path in sorted(folder.glob("*.safetensors"))}
        good = [shard for shard in shards.values() if shard is not None]
        damaged = [path for path, shard in shards.items() if shard is None] + sorted(folder.glob("*.damaged"))
        entries.append({
            "reference": folder.name,
            "sequences": sum(len(shard.keys) for shard in good),
            "tokens": sum(len(shard.log_probs) for shard in good),
            "shards": len(good),
            "bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "last_written": max((path.stat().st_mtime for path in folder.iterdir()), default=0.0),
            "damaged": [str(path) for path in damaged],
        })  # fmt: skip
    return entries


@command.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(as_json: bool) -> None:
    """One line a reference: sequences, tokens, size, when it last grew."""
    entries = _entries()
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    if not entries:
        click.echo("the cache is empty")
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["last_written"]))
        note = f"  {len(entry['damaged'])} damaged" if entry["damaged"] else ""
        click.echo(
            f"{entry['reference']}  {entry['sequences']:>9,} sequences  {entry['tokens']:>12,} tokens  "
            f"{entry['bytes'] / 1e6:>9.1f} MB  {when}{note}"
        )


@command.command(name="verify")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(as_json: bool) -> None:
    """Check every shard against its digest. Exit code 1 when one is damaged: a run scores its rows again."""
    entries = _entries()
    damaged = [path for entry in entries for path in entry["damaged"]]
    shards = sum(entry["shards"] for entry in entries)
    if as_json:
        click.echo(json.dumps({"intact": shards, "damaged": damaged}, indent=2))
    else:
        for path in damaged:
            click.echo(f"damaged: {path}")
        click.echo(f"{shards} shards intact, {len(damaged)} damaged")
    if damaged:
        raise SystemExit(1)


@command.command(name="prune")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="References not written for so long.")
@click.option("--all", "everything", is_flag=True, help="Every reference.")
@click.option("--dry-run", is_flag=True, help="Say what would go.")
def prune(older_than: float | None, everything: bool, dry_run: bool) -> None:
    """Remove damaged shards and left-over temporary files; with --older-than or --all whole references too.

    Nothing is lost but time: what a run needs again is scored again.
    """
    from alignzoo.paths import cache_root
    from alignzoo.refcache import caches

    freed = 0
    entries = {entry["reference"]: entry for entry in _entries()}
    for folder in caches(cache_root()):
        entry = entries[folder.name]
        age = (time.time() - entry["last_written"]) / 86_400
        if everything or (older_than is not None and age >= older_than):
            gone = [folder]
        else:
            hour_ago = time.time() - 3600  # a younger temporary file may belong to a run at work
            gone = [Path(path) for path in entry["damaged"]]
            gone += [path for path in folder.glob(".*.tmp") if path.stat().st_mtime < hour_ago]
        for path in gone:
            freed += entry["bytes"] if path == folder else path.stat().st_size
            click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    click.echo(f"{freed / 1e6:.1f} MB {'would be ' if dry_run else ''}freed")
