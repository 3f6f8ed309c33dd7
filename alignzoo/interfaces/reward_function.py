"""Plain functions as rewards, by the contract of TRL's trainers."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from alignzoo.interfaces.judge import Judge, Prompt

OWN = ("prompts", "completions", "completion_ids")
"""Arguments that are not columns of the data."""
OF_ROWS = ("prompt", "completion", "completion_ids")
"""Columns that are never passed as such."""
OF_TRAINER = ("trainer_state", "log_extra", "log_metric", "environments")
"""Arguments of TRL's trainers that do not exist here."""


class RewardFunction(Judge):
    """Base class of the judges that plain functions of a plugin file become.

    The function is called by keyword with those of `prompts`, `completions`, `completion_ids` and the columns of the
    data that its signature takes, with one entry for each reply. A chat's prompt is its messages, and its completion a
    list with the assistant's message. A row without a column has None there. The function returns a number for each
    reply, or None where it does not apply. It may be a coroutine function.
    """

    source = "the contract of trl.GRPOTrainer's reward_funcs, TRL 1.16"
    function: ClassVar[Callable[..., Any]]

    def columns_read(self) -> tuple[str, ...]:
        """Return the columns without which the function can't be called."""
        return tuple(name for name in _required(type(self).function) if name not in OWN)

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], columns: Sequence[Mapping[str, Any]] = (),
        tokens: Sequence[Sequence[int]] = (),
    ) -> Any:  # fmt: skip
        """Return the function's rewards, NaN for None.

        Raises:
            TypeError: The function takes a column that no row has.
        """
        return numbers(type(self).function(**self.arguments(prompts, replies, columns, tokens)))

    def arguments(
        self, prompts: Sequence[Prompt], replies: Sequence[str], columns: Sequence[Mapping[str, Any]],
        tokens: Sequence[Sequence[int]],
    ) -> dict[str, Any]:  # fmt: skip
        """Return the keyword arguments of a call."""
        names = sorted({name for row in columns for name in row} - {*OF_ROWS, *OWN})
        known: dict[str, Any] = {name: [row.get(name) for row in columns] for name in names}
        known |= {"prompts": list(prompts), "completions": list(map(completion, prompts, replies))}
        if tokens or not replies:
            known["completion_ids"] = list(tokens)
        function = type(self).function
        for name in _required(function):
            if name == "completion_ids" and name not in known:
                raise TypeError(f"{self.name} takes completion_ids, which are known of draws alone")
            if name not in known:
                raise TypeError(
                    f"{self.name} takes '{name}', and the rows have the columns {', '.join(names) or 'none'}"
                )
        taken = inspect.signature(function).parameters.values()
        if any(one.kind is one.VAR_KEYWORD for one in taken):
            return known
        return {one.name: known[one.name] for one in taken if one.name in known}


class AsyncRewardFunction(RewardFunction):
    """Base class of the judges that coroutine functions of a plugin file become."""

    async def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], columns: Sequence[Mapping[str, Any]] = (),
        tokens: Sequence[Sequence[int]] = (),
    ) -> Any:  # fmt: skip
        """Return the function's rewards, NaN for None."""
        return numbers(await type(self).function(**self.arguments(prompts, replies, columns, tokens)))


def numbers(rewards: Any) -> list[Any]:
    """Return rewards with NaN for None and with booleans as numbers, as torch reads them."""
    return [math.nan if one is None else float(one) if isinstance(one, bool) else one for one in rewards]


def completion(prompt: Prompt, reply: str) -> str | list[dict[str, Any]]:
    """Return a reply in the form of its prompt: text, or the assistant's message."""
    return reply if isinstance(prompt, str) else [{"role": "assistant", "content": reply}]


def reward_functions(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public callables of a module that take `completions`, by name.

    Classes are left out. A name is the one in the module.

    Raises:
        TypeError: One has an argument that it can't be called with.
    """
    for name, value in list(vars(module).items()):
        if name.startswith("_") or isinstance(value, type) or not callable(value):
            continue
        try:
            taken = inspect.signature(value).parameters
        except (TypeError, ValueError):
            continue
        if "completions" not in taken:
            continue
        if positional := [one.name for one in taken.values() if one.kind is one.POSITIONAL_ONLY]:
            raise TypeError(f"the reward {name} takes '{positional[0]}' by position; rewards are called by keyword")
        if trainers := [one for one in _required(value) if one in OF_TRAINER]:
            raise TypeError(f"the reward {name} needs '{trainers[0]}', which only TRL's trainer has; give it a default")
        yield name, value


def judge_of(name: str, function: Callable[..., Any], module: str, file: str) -> type[Judge]:
    """Return the judge of a function.

    Args:
        name: The name in recipes.
        function: The function, or another callable.
        module: The name of the module that offers it.
        file: The file's name, for the summary of a function without a docstring.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    waits = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
    doc = inspect.getdoc(function) if inspect.isroutine(function) else None
    fields = {
        "name": name, "function": staticmethod(function), "__module__": module, "__qualname__": name,
        "__doc__": doc or f"Reward function of {file}.", "__annotations__": {"function": ClassVar[Any]},
    }  # fmt: skip
    return type(name, (AsyncRewardFunction if waits else RewardFunction,), fields)


def _required(function: Callable[..., Any]) -> list[str]:
    """Return the names of arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = inspect.signature(function).parameters.values()
    return [one.name for one in taken if one.kind in kinds and one.default is one.empty]
