"""Choose the training and the held-out split of a dataset by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from alignzoo.core.errors import UserError, nearest

TEST_NAMES = ("test", "validation", "valid", "eval", "dev")
PURPOSES = ("prefs", "sft", "gen")
"""Last words of split names such as `train_prefs`, in datasets with one split for each training method."""
_IN_A_PATH = re.compile(rf"(?<![a-z0-9])({'|'.join(('train', *TEST_NAMES))})(_(?:{'|'.join(PURPOSES)}))?(?![a-z0-9])")


def split_in_path(label: str) -> str:
    """Return the split name in a path: `train` or `test`, with its purpose if any, or "".

    `test_prefs` is a name with a purpose.
    """
    found = [match.groups(default="") for match in _IN_A_PATH.finditer(label.lower())]
    train = next((purpose for word, purpose in found if word == "train"), None)
    if train is not None:
        return "train" + train
    return "test" + found[0][1] if found else ""


def side(name: str) -> str:
    """Return `train` or `test` if a word of the split's name says so, else ""."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return "train" if "train" in words else "test" if words & set(TEST_NAMES) else ""


def choose_splits(
    names: Sequence[str], where: str, kinds: Collection[str] = (), train: str | None = None, test: str | None = None
) -> tuple[str, str | None]:
    """Choose the split to train on and the split to hold out.

    The default training split is `train`, or the only split that is not a test split. Of several such splits,
    `*_prefs` is chosen for objectives that compare completions and `*_sft` for objectives on chosen completions.

    Args:
        names: Names of all splits.
        where: Name of the dataset, for errors.
        kinds: Kinds of data that the objective takes (`pair`, `ranked`, `chosen`, ...).
        train: The recipe's choice of the training split.
        test: The recipe's choice of the held-out split.

    Returns:
        The training split, and the held-out split or None.

    Raises:
        UserError: A chosen split does not exist, or no training split can be determined.
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
    what = "the training split is ambiguous" if found else "every split is a test split"
    raise UserError(
        what, where=where, expected=f"train_split: one of {', '.join(names)}", hint="set data.train_split in the recipe"
    )


def _suits(name: str, kinds: Collection[str]) -> bool:
    purpose = re.split(r"[^a-z0-9]+", name.lower())[-1]
    return (purpose == "prefs" and bool({"pair", "ranked"} & set(kinds))) or (
        purpose == "sft" and set(kinds) == {"chosen"}
    )
