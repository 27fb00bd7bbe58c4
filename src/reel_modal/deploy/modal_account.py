"""Check the prerequisites of a deployment: a valid token, the environment, and the secrets. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from reel_modal.backends.modal._rpc import call_api
from reel_modal.deploy.console import Redactor
from reel_modal.deploy.exit_codes import deployment_error
from reel_modal.errors import NotDeployedError

__all__ = ["check_account", "check_secrets", "hide_tokens"]

_STORE = "REEL_MODAL_STORE_URL"


def hide_tokens(redact: Redactor) -> None:
    """Add the tokens of Modal's profile to the secrets of `redact`."""
    from modal.config import config

    for name in ("token_id", "token_secret", "oauth_refresh_token", "oauth_client_secret"):
        redact.add_secret(config.get(name))


async def check_account(seconds: float) -> None:
    """Connect to Modal and check that the configured environment exists.

    Args:
        seconds: Timeout of each request.

    Raises:
        DeploymentError: The environment is not found.
        AuthError: The token is missing or refused.
        UnavailableError: Modal does not answer within `seconds`.
    """
    import modal
    from modal.config import config

    await call_api(modal.Client.from_env.aio, seconds, function="modal")
    environment = config.get("environment")
    if not environment:
        return
    try:
        await call_api(modal.Environment.from_name(environment).hydrate.aio, seconds, function="modal")
    except NotDeployedError as error:
        raise deployment_error("environment", f"environment {environment!r} not found on Modal") from error


async def check_secrets(names: Iterable[str], seconds: float) -> None:
    """Check that the secrets exist and that one of them contains the store's URL.

    Args:
        names: Names of the secrets; if there are none, nothing is checked.
        seconds: Timeout of each request.

    Raises:
        DeploymentError: A secret is not found, or no secret contains the URL.
        UnavailableError: Modal does not answer within `seconds`.
    """
    required = sorted(set(names))
    store_found = await asyncio.gather(*(_has_store(name, seconds) for name in required))
    if missing := [name for name, has_store in zip(required, store_found, strict=True) if has_store is None]:
        raise deployment_error("secret", f"secret {', '.join(missing)} not found on Modal")
    if required and not any(store_found):
        raise deployment_error("secret", f"none of the secrets {', '.join(required)} has the key {_STORE}")


async def _has_store(name: str, seconds: float) -> bool | None:
    """Return whether a secret contains the store's URL; None if the secret is not found."""
    import modal

    try:
        await call_api(modal.Secret.from_name(name).hydrate.aio, seconds, function=name)
    except NotDeployedError:
        return None
    try:
        with_store = modal.Secret.from_name(name, required_keys=[_STORE])
        await call_api(with_store.hydrate.aio, seconds, function=name)
    except NotDeployedError:
        return False
    return True
