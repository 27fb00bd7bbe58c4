"""What must be there on Modal before a deploy: a token that is taken, the environment, the secrets with their keys.

It asks and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from reel_modal.backends.answers import answered
from reel_modal.deploy.console import Redactor
from reel_modal.deploy.outcome import deployment_error
from reel_modal.errors import NotDeployedError

__all__ = ["check_account", "check_secrets", "hide_tokens"]

_STORE = "REEL_MODAL_STORE_URL"


def hide_tokens(redact: Redactor) -> None:
    """Let `redact` hide the tokens of Modal's profile."""
    from modal.config import config

    for name in ("token_id", "token_secret", "oauth_refresh_token", "oauth_client_secret"):
        redact.hide(config.get(name))


async def check_account(seconds: float) -> None:
    """Open Modal's client and look for the environment.

    Raises:
        DeploymentError: There is no token, it is refused, or there is no such environment.
        UnavailableError: Nobody answers within `seconds`.
    """
    import modal
    from modal.config import config

    await answered(modal.Client.from_env.aio, seconds, function="modal")
    environment = config.get("environment")
    if not environment:
        return
    try:
        await answered(modal.Environment.from_name(environment).hydrate.aio, seconds, function="modal")
    except NotDeployedError as error:
        raise deployment_error("environment", f"Modal has no environment {environment!r}") from error


async def check_secrets(names: Iterable[str], seconds: float) -> None:
    """Look for the secrets; one of them must have the store's URL.

    Raises:
        DeploymentError: One is not there, or none has the URL.
        UnavailableError: Nobody answers within `seconds`.
    """
    wanted = sorted(set(names))
    found = await asyncio.gather(*(_has_store(name, seconds) for name in wanted))
    if missing := [name for name, has_store in zip(wanted, found, strict=True) if has_store is None]:
        raise deployment_error("secret", f"Modal has no secret {', '.join(missing)}")
    if wanted and not any(found):
        raise deployment_error("secret", f"none of the secrets {', '.join(wanted)} has the key {_STORE}")


async def _has_store(name: str, seconds: float) -> bool | None:
    """Return whether a secret has the store's URL; None when there is no such secret."""
    import modal

    try:
        await answered(modal.Secret.from_name(name).hydrate.aio, seconds, function=name)
    except NotDeployedError:
        return None
    try:
        with_store = modal.Secret.from_name(name, required_keys=[_STORE])
        await answered(with_store.hydrate.aio, seconds, function=name)
    except NotDeployedError:
        return False
    return True
