"""Which of a dataset's splits to train on and which to hold out, by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from alignzoo.core.errors import UserError, nearest

TEST_NAMES = ("test", "validation", "valid", "eval", "dev")
PURPOSES = ("prefs", "sft", "gen")
"""Last words of names such as `train_prefs`, where a dataset has a split for each way to train."""
_IN_A_PATH = re.compile(rf"(?<![a-z0-9])({'|'.join(('train', *TEST_NAMES))})(_(?:{'|'.join(PURPOSES)}))?(?![a-z0-9])")


def split_in_path(label: str) -> str:
    """`train`, `test` or these with a purpose (`test_prefs`), as a file's path below a folder says; else ""."""
    found = [match.groups(default="") for match in _IN_A_PATH.finditer(label.lower())]
    train = next((purpose for word, purpose in found if word == "train"), None)
    if train is not None:
        return "train" + train
    return "test" + found[0][1] if found else ""


def side(name: str) -> str:
    """`train` or `test`, by the words of a split's name; else ""."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return "train" if "train" in words else "test" if words & set(TEST_NAMES) else ""


def choose_splits(
    names: Sequence[str], where: str, kinds: Collection[str] = (), train: str | None = None, test: str | None = None
) -> tuple[str, str | None]:
    """The split to train on, and the one to hold out if there is one. `train` and `test` are the recipe's choices.

    By default it trains on `train`, or the only split that is no test split. Of several the one called `*_prefs` serves
    objectives that compare (`kinds`: pair, ranked), and `*_sft` those that train on the chosen completion alone. Raises
    UserError, with all names, where none of this holds.
    """
    for name in (train, test):
        if name is not None and name not in names:
            raise UserError(
                f"no split '{name}'", where=where, expected=f"one of {', '.join(names)}", nearest=nearest(name, names)
            )
    if not names:
        raise UserError("the dataset has no splits", where=where)
    train = train or _to_train_on(names, where, kinds)
    if test is None:
        tests = [name for name in names if side(name) == "test" and name != train]
        alike = [re.sub("train", word, train) for word in TEST_NAMES]
        suited = [name for name in tests if _suits(name, kinds)]
        preferred = [*alike, *TEST_NAMES, *(suited if len(suited) == 1 else ())]
        test = next((name for name in preferred if name in tests), None)
    return train, test


def _to_train_on(names: Sequence[str], where: str, kinds: Collection[str]) -> str:
    if "train" in names:
        return "train"
    found = [name for name in names if side(name) == "train"] or [name for name in names if not side(name)]
    suited = found if len(found) == 1 else [name for name in found if _suits(name, kinds)]
    if len(suited) == 1:
        return suited[0]
    what = "no split is plainly the one to train on" if found else "every split is a test split"
    raise UserError(
        what, where=where, expected=f"train_split: one of {', '.join(names)}", hint="set data.train_split in the recipe"
    )


def _suits(name: str, kinds: Collection[str]) -> bool:
    purpose = re.split(r"[^a-z0-9]+", name.lower())[-1]
    return (purpose == "prefs" and bool({"pair", "ranked"} & set(kinds))) or (
        purpose == "sft" and set(kinds) == {"chosen"}
    )
