"""Evaluations that several runs share: the same sampling settings and judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from alignzoo.compare.results import EvaluationFolder, FiguresManifest
from alignzoo.compare.verdicts import JudgeVersion, verdict_folders
from alignzoo.core.artifacts import read_verified
from alignzoo.core.errors import UserError, nearest


@dataclass(frozen=True)
class Evaluation:
    """A folder `evaluations/<key>` of a run, and the verdicts on its replies."""

    path: Path
    sampling: str
    """Sampling settings, as JSON."""
    tokens: str
    """Digest of the tokens of the held-out rows."""
    verdicts: Mapping[JudgeVersion, Path]


@dataclass(frozen=True)
class _Choice:
    """Sampling settings and judges that every run has been measured with."""

    folders: Mapping[Path, Evaluation]
    """Run -> its evaluation with these settings."""
    judges: tuple[JudgeVersion, ...]

    @property
    def names(self) -> set[str]:
        """Names of all folders of this choice, in any run."""
        each = self.folders.values()
        return {one.path.name for one in each} | {one.verdicts[judge].name for one in each for judge in self.judges}

    @property
    def label(self) -> str:
        """Label of the choice, such as `name (temperature 1.0, judge toy)`.

        The name is in no other choice of these settings.
        """
        one = next(iter(self.folders.values()))
        settings = [f"{key} {value}" for key, value in (json.loads(one.sampling) or {}).items()]
        name = one.verdicts[self.judges[-1]].name if self.judges else one.path.name
        return f"{name} ({', '.join([*settings, *(f'judge {judge}' for judge, _ in self.judges)])})"


def evaluations(run: Path) -> list[Evaluation]:
    """Return the intact evaluations of a run folder, by name."""
    inside = run / "evaluations"
    found = []
    for path in sorted(inside.iterdir()) if inside.is_dir() else ():
        about = read_verified(path, FiguresManifest) if path.is_dir() and not path.name.startswith(".") else None
        if about is not None:
            sampling = json.dumps(about.get("sampling"), sort_keys=True)
            found.append(Evaluation(path, sampling, str(about.get("tokens")), verdict_folders(path)))
    return found


def shared_evaluation(runs: Sequence[Path], named: Sequence[str] = ()) -> dict[Path, EvaluationFolder]:
    """Return run -> its evaluation, with sampling settings and judges that all runs share.

    Args:
        runs: Run folders.
        named: Names of folders in `evaluations` or `evaluations/verdicts` of any run. They choose among several
            sampling settings, and among several versions of a judge.

    Raises:
        UserError: A run has not been measured, the runs share no settings, no run has a named folder, or several
            settings have equally many judges and no name chooses among them.
    """
    found = {run: evaluations(run) for run in runs}
    for run, own in found.items():
        if not own:
            raise UserError("this run has not been measured", where=str(run), hint="measure it with `alignzoo compare`")
    _check_names(found, named)
    choices = [choice for choice in _choices(found) if set(named) <= choice.names]
    if not choices:
        raise UserError(
            "these runs have not been measured alike", where=", ".join(map(str, runs)),
            hint="run `alignzoo compare` on their recipes",
        )  # fmt: skip
    most = max(len(choice.judges) for choice in choices)
    best = [choice for choice in choices if len(choice.judges) == most]
    if len(best) > 1:
        raise UserError(
            "these runs have been measured in several ways", where=str(runs[0]),
            expected="--evaluation with one of " + ", ".join(choice.label for choice in best),
        )  # fmt: skip
    return {
        run: EvaluationFolder(one.path, tuple(one.verdicts[judge] for judge in best[0].judges))
        for run, one in best[0].folders.items()
    }


def _choices(found: Mapping[Path, Sequence[Evaluation]]) -> list[_Choice]:
    """Return the choices of shared sampling settings and of shared judges' versions.

    There is one for each of the settings and each combination of the versions.
    """
    out = []
    for sampling in sorted(set.intersection(*({one.sampling for one in own} for own in found.values()))):
        folders: dict[Path, Evaluation] = {}
        for run, own in found.items():
            tokens = next(iter(folders.values())).tokens if folders else ""
            alike = [one for one in own if one.sampling == sampling]
            folders[run] = min(alike, key=lambda one: (-len(one.verdicts), one.tokens != tokens, one.path.name))
        versions: dict[str, list[JudgeVersion]] = {}
        for judge in sorted(set.intersection(*(set(one.verdicts) for one in folders.values()))):
            versions.setdefault(judge[0], []).append(judge)
        out += [_Choice(folders, judges) for judges in product(*versions.values())]
    return out


def _check_names(found: Mapping[Path, Sequence[Evaluation]], named: Sequence[str]) -> None:
    names = {run: [name for one in own for name in (one.path.name, *(path.name for path in one.verdicts.values()))]
             for run, own in found.items()}  # fmt: skip
    known = [name for own in names.values() for name in own]
    for name in named:
        if name not in known:
            raise UserError(
                f"no run has the evaluation '{name}'", where="--evaluation", nearest=nearest(name, known),
                expected=f"one of {', '.join(next(iter(names.values())))}",
            )  # fmt: skip
