"""Of the ways in which runs have been measured, the one that all of them share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.core.artifacts import read_verified
from alignzoo.core.errors import UserError, nearest


@dataclass(frozen=True)
class Evaluation:
    """A folder `evaluations/<key>` of a run, or `evaluations/<key>-<judges>`, and how it was come by."""

    path: Path
    sampling: str
    """The settings, as JSON."""
    judges: tuple[str, ...]
    version: str | None
    """Digest of the judges' fields and code; None where one of them failed, for it then tells that too."""
    tokens: str
    """Digest of the tokens of the held-out rows."""

    def like(self, other: Evaluation) -> bool:
        """Whether both were measured in one way, as far as a failed judge lets us know."""
        known = None in (self.version, other.version) or self.version == other.version
        return (self.sampling, self.judges) == (other.sampling, other.judges) and known

    def distance(self, other: Evaluation) -> tuple[bool, bool, bool, str]:
        """For sorting: a run may have been measured twice in one way, as a row and as what others start from."""
        return other is not self, other.version != self.version, other.tokens != self.tokens, other.path.name


def evaluations(run: Path) -> list[Evaluation]:
    """The whole evaluations of a run folder, by name. Damaged ones are none."""
    inside = run / "evaluations"
    found = []
    for path in sorted(inside.iterdir()) if inside.is_dir() else ():
        about = read_verified(path) if path.is_dir() and not path.name.startswith(".") else None
        if about is not None:
            judges = about.get("judges", {})
            version = None if any(judges.values()) else path.name.partition("-")[2]
            sampling = json.dumps(about.get("sampling"), sort_keys=True)
            found.append(Evaluation(path, sampling, tuple(sorted(judges)), version, str(about.get("tokens"))))
    return found


def shared_evaluation(runs: Sequence[Path], named: str | None = None) -> dict[Path, Evaluation]:
    """Run -> its evaluation: of one kind for all of them, that with the most judges, or that of the folder `named`.

    Raises UserError for a run that has not been measured, for runs that have not been measured alike, and where two
    kinds have as many judges and none is named.
    """
    found = {run: evaluations(run) for run in runs}
    for run, there in found.items():
        if not there:
            raise UserError("this run has not been measured", where=str(run), hint="alignzoo compare does that")
    kinds: dict[tuple[str, tuple[str, ...], str | None], dict[Path, Evaluation]] = {}
    for one in (one for there in found.values() for one in there if named in (None, one.path.name)):
        alike = {run: sorted(filter(one.like, there), key=one.distance) for run, there in found.items()}
        vague = one.version is None and any(other.version for there in alike.values() for other in there)
        if all(alike.values()) and not vague:
            kinds.setdefault((one.sampling, one.judges, one.version), {run: there[0] for run, there in alike.items()})
    most = max((len(judges) for _, judges, _ in kinds), default=0)
    best = [kind for (_, judges, _), kind in kinds.items() if len(judges) == most]
    if len(best) == 1:
        return best[0]
    names = [one.path.name for there in found.values() for one in there]
    if named is not None and named not in names:
        raise UserError(
            f"no run has the evaluation '{named}'", where="--evaluation", nearest=nearest(named, names),
            expected=f"one of {', '.join(one.path.name for one in found[runs[0]])}",
        )  # fmt: skip
    if not best:
        raise UserError(
            "these runs have not been measured alike", where=", ".join(map(str, runs)),
            hint="alignzoo compare of their recipes does that",
        )  # fmt: skip
    ways = [next(iter(kind.values())) for kind in best]
    raise UserError(
        "these runs have been measured in several ways", where=str(runs[0]),
        expected="--evaluation with one of " + ", ".join(f"{way.path.name} ({_words(way)})" for way in ways),
    )  # fmt: skip


def _words(way: Evaluation) -> str:
    settings = json.loads(way.sampling) or {}
    return ", ".join(
        [*(f"{key} {value}" for key, value in settings.items()), *(f"judge {name}" for name in way.judges)]
    )
