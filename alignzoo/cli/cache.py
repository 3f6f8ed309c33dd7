"""`alignzoo cache`: list, verify and prune the reference cache and the token store."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import click


@click.group(name="cache", short_help="The reference log-probs and tokens on disk: ls, verify, prune.")
def command() -> None:
    """Manage the reference cache and the token store (in ALIGNZOO_CACHE, or ~/.cache/alignzoo)."""


def _entries() -> list[dict[str, Any]]:
    from alignzoo.core.paths import cache_root
    from alignzoo.reference.cache import caches, read_shard

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
@click.option("--json", "as_json", is_flag=True, help="Print the references as JSON.")
def ls(as_json: bool) -> None:
    """List references (sequences, tokens, size, last write), then the tokens of each dataset."""
    from alignzoo.core.paths import cache_root
    from alignzoo.data.token_store import stored

    entries = _entries()
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    if not entries and not stored(cache_root()):
        click.echo("the cache is empty")
    for entry in entries:
        when = _date(entry["last_written"])
        note = f"  {len(entry['damaged'])} damaged" if entry["damaged"] else ""
        click.echo(
            f"{entry['reference']}  {entry['sequences']:>9,} sequences  {entry['tokens']:>12,} tokens  "
            f"{entry['bytes'] / 1e6:>9.1f} MB  {when}{note}"
        )
    for folder in stored(cache_root()):
        click.echo(f"{folder.name}  tokens {_bytes(folder) / 1e6:>46.1f} MB  {_date(folder.stat().st_mtime)}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in path.iterdir()) if path.is_dir() else path.stat().st_size


@command.command(name="verify")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(as_json: bool) -> None:
    """Check every shard against its digest.

    The exit code is 1 if one is damaged. Runs score the rows of damaged shards again.
    """
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
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Also remove entries without a write for this long.",
)
@click.option("--all", "everything", is_flag=True, help="Remove every reference and all tokens.")
@click.option("--dry-run", is_flag=True, help="Print without removing.")
def prune(older_than: float | None, everything: bool, dry_run: bool) -> None:
    """Remove damaged and leftover temporary files; with --older-than or --all, references and tokens too.

    Runs compute again what they need, so pruning costs only time.
    """
    from alignzoo.core.paths import cache_root
    from alignzoo.data.token_store import leftovers, stored
    from alignzoo.reference.cache import caches

    def expired(last_written: float) -> bool:
        return everything or (older_than is not None and (time.time() - last_written) / 86_400 >= older_than)

    entries = {entry["reference"]: entry for entry in _entries()}
    hour_ago = time.time() - 3600  # a younger temporary file may belong to a running job
    gone: list[Path] = []
    for folder in caches(cache_root()):
        entry = entries[folder.name]
        if expired(entry["last_written"]):
            gone.append(folder)
        else:
            gone += [Path(path) for path in entry["damaged"]]
            gone += [path for path in folder.glob(".*.tmp") if path.stat().st_mtime < hour_ago]
    gone += [folder for folder in stored(cache_root()) if expired(folder.stat().st_mtime)]
    gone += [path for path in leftovers(cache_root()) if path.suffix == ".damaged" or path.stat().st_mtime < hour_ago]
    root = cache_root().resolve()
    freed = 0
    for path in gone:
        if path.is_symlink() or not path.resolve().is_relative_to(root):
            click.echo(f"kept: {path} is outside the cache", err=True)
            continue
        freed += _bytes(path)
        click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    click.echo(f"{freed / 1e6:.1f} MB {'would be ' if dry_run else ''}freed")
