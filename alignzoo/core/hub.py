"""Reachability of the Hugging Face hub: one short question a process."""

from __future__ import annotations

import sys
import threading
from functools import cache

SECONDS = 3.0
"""Time that the hub has for an answer."""


@cache
def hub_problem() -> str:
    """Return why the hub can't be asked, or "" if it answers.

    It is asked once a process. Without an answer the libraries of the hub go on with their cache alone, as with
    HF_HUB_OFFLINE=1, so that what is in the cache loads at once and what is not there fails at once.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(_ask(constants.ENDPOINT)), daemon=True)
    asking.start()  # a thread, because a name server has no time limit of its own
    asking.join(SECONDS)
    problem = found[0] if found else f"no answer in {SECONDS:g} s"
    if problem:
        problem = f"{constants.ENDPOINT} can't be reached ({problem})"
        constants.HF_HUB_OFFLINE = True
        if config := getattr(sys.modules.get("datasets"), "config", None):
            config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True
    return problem


def _ask(endpoint: str) -> str:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=SECONDS)
    except Exception as error:  # the client raises many types for a missing network
        return str(error).partition("\n")[0] or type(error).__name__
    return ""
