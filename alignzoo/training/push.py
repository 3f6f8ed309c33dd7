"""A run's policy on the hub: exported, checked, and sent with huggingface_hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from alignzoo.core.console import Screen
from alignzoo.core.door import read_text
from alignzoo.core.errors import RunFailed, UserError, first_line
from alignzoo.core.files import temporary_path
from alignzoo.core.redaction import holds_secret, register_secret
from alignzoo.models.adapters import is_adapter
from alignzoo.models.saved_adapter import own_base
from alignzoo.training.export import export_run, policy_of
from alignzoo.training.model_card import CardOptions

CARD = "README.md"
SECONDS = 5.0
"""How long the hub may take to answer the first request. The uploads after it are retried by huggingface_hub."""
REPLACED = ("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json",
            "adapter_model.safetensors", "adapter_config.json")  # fmt: skip
"""Weights of an earlier push, which are removed where this one has none of that name: a loader would read them too."""
TEXTS = (".json", ".md", ".txt", ".jinja", ".py")


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a policy is exported and sent."""

    private: bool = False
    revision: str | None = None
    """The branch; by default main. It is created where there is none."""
    merge: bool = False
    dtype: str | None = None
    shard: str = "5GB"
    license: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """The files of a push with their sizes in bytes, its model card, and its address."""

    files: dict[str, int]
    card: str
    url: str = ""
    """Empty if nothing was sent."""


def push_run(run: Path, repo: str, options: PushOptions, screen: Screen, dry_run: bool = False) -> Sent:
    """Send the policy of a finished run to a repository of the hub.

    The repository is created where there is none.

    Args:
        run: The run folder.
        repo: Id of the repository, `user/name`.
        options: How the policy is exported and sent.
        screen: Receives progress.
        dry_run: Export and return what would be sent. The hub is not asked.

    Raises:
        UserError: The id is none, the run is not finished, there is no token, or the hub refused it.
        RunFailed: The hub can't be reached, or failed.
    """
    _check_id(repo)
    policy = policy_of(run)
    if is_adapter(policy) and not options.merge and (base := own_base(policy)):
        raise UserError(
            f"the adapter's base model is a folder of this machine, '{Path(base).name}', which others lack",
            where=str(run), hint="--merge pushes full weights",
        )  # fmt: skip
    api = None if dry_run else _signed_in(repo)
    to = temporary_path(run / "push")
    try:
        card = CardOptions(repo, options.license)
        export_run(run, to, options.merge, options.dtype, options.shard, False, screen, card=card)
        files = {
            path.relative_to(to).as_posix(): path.stat().st_size for path in sorted(to.rglob("*")) if path.is_file()
        }
        _check_texts(to, files)
        found = Sent(files, read_text(to / CARD))
        if ModelCard(found.card).data.get("license") is None:
            screen.info("the card names no license: the base model's is not known here, and --license sets one")
        return found if api is None else Sent(files, found.card, _send(api, to, run, repo, options, screen))
    finally:
        shutil.rmtree(to, ignore_errors=True)


def _check_id(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"no id of a repository: {first_line(error)}", where=repo, expected="user/name") from None
    if "/" not in repo:
        raise UserError("the id has no user or organization", where=repo, expected=f"user/{repo}")


def _signed_in(repo: str) -> HfApi:
    """Return the hub's API, after one request that checks network and token."""
    if constants.HF_HUB_OFFLINE:
        raise UserError("the hub is switched off by HF_HUB_OFFLINE", where=repo, hint="unset it, or use --dry-run")
    token = get_token()
    if token is None:
        raise UserError("there is no token for the hub", where=repo, hint="`hf auth login`, or set HF_TOKEN")
    register_secret(token)
    api = HfApi(token=token)
    with hub_errors(api.endpoint, repo):
        answer = get_session().get(
            f"{api.endpoint}/api/whoami-v2", headers=build_hf_headers(token=token), timeout=SECONDS
        )
        hf_raise_for_status(answer)
        user: dict[str, Any] = answer.json()
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise UserError(
            f"the token of {user.get('name')} can only read", where=repo,
            expected="a token with write access", hint="https://huggingface.co/settings/tokens",
        )  # fmt: skip
    return api


@contextmanager
def hub_errors(endpoint: str, repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into an error with its cause and a fix.

    Raises:
        UserError: The hub refused the request.
        RunFailed: The hub can't be reached, or failed.
    """
    try:
        yield
    except (UserError, RunFailed, MemoryError):
        raise
    except HfHubHTTPError as error:
        raise _refusal(error, first_line(error.server_message or ""), endpoint, repo) from error
    except Exception as error:  # of the HTTP and Xet clients, which are others in other versions of huggingface_hub
        if isinstance(error.__cause__, HfHubHTTPError):  # its own words on it: of the card, and of one file
            raise _refusal(error.__cause__, " ".join(str(error).split()), endpoint, repo) from error
        why = first_line(error) or type(error).__name__
        raise RunFailed(f"{endpoint} can't be reached or gave no valid answer: {why}; push again") from error


def _refusal(error: HfHubHTTPError, said: str, endpoint: str, repo: str) -> Exception:
    status = error.response.status_code
    words = f" ({said})" if said else ""
    if status == 401:
        return UserError(
            f"{endpoint} does not accept the token{words}", where=repo,
            hint="`hf auth login`, or set HF_TOKEN to a valid one; HF_TOKEN prevails",
        )  # fmt: skip
    if status == 403:
        return UserError(
            f"the token may not write there{words}", where=repo,
            expected="a repository of yours or of your organization, and a token with write access",
        )  # fmt: skip
    if status == 404:
        return UserError(f"{endpoint} has no such repository, or hides it from this token{words}", where=repo)
    if status in (409, 412):
        return UserError(
            f"another commit or repository is in the way{words}", where=repo, hint="look at it, and push again"
        )
    if status in (400, 422):
        return UserError(f"{endpoint} refused the request{words}", where=repo)
    return RunFailed(f"{endpoint} answered {status}{words}; push again")


def _check_texts(folder: Path, files: dict[str, int]) -> None:
    """Check that no text file holds a secret or the path of a folder of this machine."""
    for name in files:
        if name.endswith(TEXTS):
            text = read_text(folder / name, limit=files[name] + 1)
            if holds_secret(text):
                raise UserError("a secret is in a file that would be sent", where=name, expected="a file without it")
            places = [str(path) for path in (Path.home(), Path.cwd(), folder.parent) if len(path.parts) > 2]
            if found := next((place for place in places if place in text), None):
                raise UserError(
                    f"the path of a folder of this machine is in a file that would be sent: {found}", where=name
                )


def _send(api: HfApi, folder: Path, run: Path, repo: str, options: PushOptions, screen: Screen) -> str:
    """Create what is missing, send the files as one commit, and return its address."""
    with hub_errors(api.endpoint, repo):
        api.create_repo(repo, private=options.private or None, exist_ok=True)
        if options.private and not api.repo_info(repo).private:
            raise UserError(
                "the repository exists and is public, so nothing was sent", where=repo,
                expected="a new or private repository", hint="make it private in its settings, or leave out --private",
            )  # fmt: skip
        if options.revision:
            try:
                api.repo_info(repo, revision=options.revision)
            except RevisionNotFoundError:
                api.create_branch(repo, branch=options.revision, exist_ok=True)
        screen.info(f"sending to {api.endpoint}/{repo}")
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=options.revision, delete_patterns=list(REPLACED),
            commit_message=f"Push the run {run.name}",
        )  # fmt: skip
    return str(commit.commit_url)
