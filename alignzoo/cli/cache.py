"""`alignzoo cache`: list, verify and prune the reference cache and the token store."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click


@click.group(name="cache", short_help="The reference log-probs and tokens on disk: ls, verify, prune.")
def command() -> None:
    """Manage the reference cache and the token store.

    Both are in ALIGNZOO_CACHE, or ~/.cache/alignzoo.
    """


def _entries() -> list[dict[str, Any]]:
    from alignzoo.core.door import BadFile, MissingFile, UnreadableFile
    from alignzoo.core.paths import cache_root
    from alignzoo.reference.cache import Shard, caches, read_shard, shard_paths

    entries = []
    for folder in caches(cache_root()):
        good: list[Shard] = []
        damaged, unreadable = sorted(folder.glob("*.damaged")), []
        for path in shard_paths(folder):
            try:
                good.append(read_shard(path))
            except UnreadableFile:
                unreadable.append(path)
            except BadFile as error:
                if not isinstance(error, MissingFile) or path.is_symlink():  # or another process has removed it
                    damaged.append(path)
        entries.append({
            "reference": folder.name,
            "sequences": sum(len(shard.keys) for shard in good),
            "tokens": sum(len(shard.log_probs) for shard in good),
            "shards": len(good),
            "bytes": _bytes(folder),
            "last_written": _last_written(folder),
            "damaged": [str(path) for path in damaged],
            "unreadable": [str(path) for path in unreadable],
        })  # fmt: skip
    return entries


def _files(path: Path) -> list[os.stat_result]:
    """Return the status of a file, or of the files in a folder.

    Files that are removed meanwhile are left out, and so are those of a folder that this user can't read.
    """
    found = []
    try:
        for one in path.iterdir() if path.is_dir() else [path]:
            with suppress(FileNotFoundError):  # another process has renamed or removed it
                found.append(one.lstat())
    except OSError:  # a folder of another user
        pass
    return found


def _bytes(path: Path) -> int:
    return sum(one.st_size for one in _files(path))


def _last_written(path: Path) -> float:
    return max((one.st_mtime for one in _files(path)), default=0.0)


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
        note = "".join(f"  {len(entry[kind])} {kind}" for kind in ("damaged", "unreadable") if entry[kind])
        click.echo(
            f"{entry['reference']}  {entry['sequences']:>9,} sequences  {entry['tokens']:>12,} tokens  "
            f"{entry['bytes'] / 1e6:>9.1f} MB  {when}{note}"
        )
    for folder in stored(cache_root()):
        click.echo(f"{folder.name}  tokens {_bytes(folder) / 1e6:>46.1f} MB  {_date(_last_written(folder))}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


@command.command(name="verify")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(as_json: bool) -> None:
    """Check the reference cache and the token store against their digests.

    Every shard and every folder of tokens is checked. The exit code is 1 if one is damaged. Runs compute damaged parts
    again. What this user can't read is listed, and is not damaged.
    """
    entries, tokens = _entries(), _tokens()
    damaged = [path for entry in entries for path in entry["damaged"]] + tokens["damaged"]
    unreadable = [path for entry in entries for path in entry["unreadable"]] + tokens["unreadable"]
    shards, folders = sum(entry["shards"] for entry in entries), len(tokens["intact"])
    if as_json:
        found = {"intact": shards, "tokens": folders, "damaged": damaged, "unreadable": unreadable}
        click.echo(json.dumps(found, indent=2))
    else:
        for kind, paths in (("damaged", damaged), ("not readable", unreadable)):
            for path in paths:
                click.echo(f"{kind}: {path}")
        more = f", {len(unreadable)} not readable" if unreadable else ""
        click.echo(f"{shards} shards and {folders} folders of tokens intact, {len(damaged)} damaged{more}")
    if damaged:
        raise SystemExit(1)


def _tokens() -> dict[str, list[str]]:
    """The folders of the token store by state: intact, damaged or unreadable."""
    from alignzoo.core.door import BadFile, MissingFile, UnreadableFile
    from alignzoo.core.paths import cache_root
    from alignzoo.data.token_store import read_folder, stored

    found: dict[str, list[str]] = {"intact": [], "damaged": [], "unreadable": []}
    for folder in stored(cache_root()):
        try:
            read_folder(folder)
            found["intact"].append(str(folder))
        except UnreadableFile:
            found["unreadable"].append(str(folder))
        except MissingFile:  # another process has removed it
            pass
        except BadFile:
            found["damaged"].append(str(folder))
    found["damaged"] += map(str, (cache_root() / "tokens").glob(".*.damaged"))
    return found


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
    """Remove damaged and leftover temporary files from the cache.

    With --older-than or --all, references and tokens are removed too. Runs compute again what they need, so pruning
    costs only time.
    """
    from alignzoo.core.files import is_left_over, remove
    from alignzoo.core.paths import cache_root
    from alignzoo.data.token_store import leftovers, stored
    from alignzoo.reference.cache import caches

    def expired(path: Path) -> bool:
        return everything or (older_than is not None and (time.time() - _last_written(path)) / 86_400 >= older_than)

    entries = {entry["reference"]: entry for entry in _entries()}
    gone: list[Path] = []
    for folder in caches(cache_root()):
        if expired(folder):
            gone.append(folder)
        elif folder.name in entries:
            gone += [Path(path) for path in entries[folder.name]["damaged"]]
            gone += filter(is_left_over, folder.glob(".*.tmp"))
    gone += [folder for folder in stored(cache_root()) if expired(folder)]
    gone += leftovers(cache_root())
    root = cache_root().resolve()
    freed = 0
    for path in gone:
        if path.is_symlink() or not path.resolve().is_relative_to(root):
            click.echo(f"kept: {path} is outside the cache", err=True)
            continue
        size = _bytes(path)
        if not dry_run:
            remove(path)
        freed += size
        click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    click.echo(f"{freed / 1e6:.1f} MB {'would be ' if dry_run else ''}freed")
