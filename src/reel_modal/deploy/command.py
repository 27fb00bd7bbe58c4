"""The command `python -m reel_modal.deploy`: check, plan, confirm, preflight, publish, verify; a failure ends it.

Data is written to stdout, messages to stderr, and both to a log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from platformdirs import user_log_path

from reel_modal._costs.rates import load_rates
from reel_modal._support.interruption import Interruption
from reel_modal.backends.modal import ModalBackend, load_modal
from reel_modal.backends.modal.deployment import Verification, verify_deployment
from reel_modal.deploy.console import Console, Redactor
from reel_modal.deploy.exit_codes import DONE, FAILED, deployment_error, exit_status, explained
from reel_modal.deploy.modal_account import check_account, check_secrets, hide_tokens
from reel_modal.deploy.options import add_arguments
from reel_modal.deploy.plan import Plan, make_plan
from reel_modal.deploy.publish import Deployment, publish
from reel_modal.deploy.tags import app_tags
from reel_modal.errors import ConfigError, DeploymentError, ReelModalError
from reel_modal.functions.catalog import MODULES_VARIABLE, AnyFunction, all_functions
from reel_modal.functions.contract import local_contract
from reel_modal.functions.specs import ImageSpec, app_name, chosen_functions
from reel_modal.settings import Settings

__all__ = ["main", "run"]

_ANSWER_SECONDS: Final = 60.0
_CONTAINER_SECONDS: Final = 180.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reel_modal.deploy",
        description="Deploy the render functions to Modal, and verify the deployment.",
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Run the command with the parsed options of `add_arguments`, and return its exit status."""
    redact = Redactor(os.environ)
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = arguments.log_file or user_log_path("reel-modal") / f"deploy-{now}-{os.getpid()}.log"
    try:
        console = Console(path.absolute(), redact)
    except ConfigError as error:
        failure = explained(error)
        print(f"error: {redact(str(failure))}", file=sys.stderr)  # noqa: T201 - the console itself failed
        return exit_status(failure)
    with console, Interruption() as interruption:
        try:
            return _Command(arguments, console).run()
        except KeyboardInterrupt:
            console.info("interrupted; use --verify-only to see the deployed version")
            return interruption.exit_status
        except ReelModalError as error:
            return _failed(explained(error), console, as_json=arguments.json)
        except Exception:  # noqa: BLE001 - a fault of this package; its traceback may hold a secret as well
            return _failed(deployment_error("unexpected", traceback.format_exc()), console, as_json=arguments.json)
        finally:
            console.info(f"log: {console.log_path}")


def _failed(failure: DeploymentError, console: Console, *, as_json: bool) -> int:
    if as_json:
        # Redact before encoding as JSON: an escaped secret would not be found.
        report = {"kind": failure.kind, "message": console.redact(failure.message), "next": failure.cure}
        console.out(json.dumps({"ok": False, "error": report}))
    console.info(f"error: {failure}")
    return exit_status(failure)


class _Command:
    """One run of the command: its options and its steps."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments = arguments
        self._console = console
        self._settings = Settings.from_env(app=arguments.app, environment=arguments.environment)
        app_tags()  # the process that publishes sets them
        self._app = app_name(self._settings)
        self._environment = self._settings.environment or "production"
        self._modules = _modules(arguments.functions)
        self._declared = all_functions(env={**os.environ, MODULES_VARIABLE: self._modules})
        self._names = _chosen(arguments.only, self._declared)
        chosen = [self._declared[name] for name in self._names]
        self._specs = {name: spec for each in chosen for name, spec in each.deployed_specs().items()}
        self._answer_seconds = min(_ANSWER_SECONDS, arguments.timeout)

    def run(self) -> int:
        """Run the steps that the options select, and return the exit status."""
        if self._arguments.verify_only:
            return self._verify()
        if self._arguments.dry_run:
            return self._dry_run()
        verification = asyncio.run(self._check_deployed(ask_container=False))
        plan = self._plan(verification)
        self._console.info(plan.to_text())
        if not self._confirmed(plan):
            self._console.info("nothing was deployed")
            return FAILED
        asyncio.run(self._check_secrets())
        if not self._arguments.no_preflight:
            self._run_trials()
        self._publish()
        return self._verify()

    def _dry_run(self) -> int:
        try:
            verification = asyncio.run(self._check_deployed(ask_container=False))
            if not verification.ok and verification.deployed is not None:
                # Something differs; a container knows the details.
                verification = asyncio.run(self._check_deployed(ask_container=True))
        except ReelModalError:
            # The plan does not need Modal; only its differences from the deployed app are unknown.
            self._show(self._plan(None))
            raise
        self._show(self._plan(verification))
        return DONE

    def _show(self, plan: Plan) -> None:
        self._console.out(json.dumps(plan.to_dict()) if self._arguments.json else plan.to_text())

    def _plan(self, verification: Verification | None) -> Plan:
        return make_plan(self._app, self._environment, self._specs.values(), load_rates(), verification)

    def _confirmed(self, plan: Plan) -> bool:
        reasons = [f"{self._app} is in production"] if self._environment == "production" else []
        if plan.taken_away:
            reasons.append(f"{', '.join(plan.taken_away)} would be removed from {self._app}")
        if not reasons or self._arguments.yes:
            return True
        if not sys.stdin.isatty():
            raise deployment_error("unconfirmed", "; ".join(reasons))
        return self._console.ask(f"{'; '.join(reasons)}. Deploy? [y/N]")

    def _run_trials(self) -> None:
        from reel_modal.deploy.environments import image_interpreter
        from reel_modal.deploy.preflight import Interpreter, run_preflight

        by_image: dict[ImageSpec, list[AnyFunction]] = {}
        for name in self._names:
            by_image.setdefault(self._specs[name].image, []).append(self._declared[name])
        for image, functions in by_image.items():
            chosen = self._arguments.preflight_python
            # Do not resolve symbolic links: Python finds its virtual environment by the path it was started with.
            python = Interpreter(chosen.absolute()) if chosen else image_interpreter(image, self._console)
            run_preflight(python, functions, self._deployment().variables(), self._console)

    def _deployment(self) -> Deployment:
        return Deployment(
            environment=self._environment,
            app=self._settings.app,
            functions=self._names,
            modules=self._modules,
            packages=tuple(sorted({each.package for each in self._declared.values()})),
            tag=self._arguments.tag,
            strategy=self._arguments.strategy,
            timeout_seconds=self._arguments.timeout,
        )

    def _publish(self) -> None:
        self._console.info(f"deploying {self._app} ({self._environment})")
        self._console.info(f"deployed: {publish(self._deployment(), self._console)}")

    def _verify(self) -> int:
        verification = asyncio.run(self._check_deployed(ask_container=True))
        if self._arguments.json:
            self._console.out(json.dumps(verification.to_dict()))
        else:
            self._console.out(verification.to_text())
        if not verification.ok:
            self._console.info(f"next: {deployment_error('drift', '').cure}")
        return DONE if verification.ok else FAILED

    async def _check_deployed(self, *, ask_container: bool) -> Verification:
        await self._open()
        return await verify_deployment(
            ModalBackend(self._app, answer_seconds=self._answer_seconds),
            local_contract(functions=self._declared),
            self._specs,
            ask_container=ask_container,
            container_seconds=min(_CONTAINER_SECONDS, self._arguments.timeout),
        )

    async def _open(self) -> None:
        await load_modal()
        hide_tokens(self._console.redact)
        await check_account(self._answer_seconds)

    async def _check_secrets(self) -> None:
        await check_secrets((name for spec in self._specs.values() for name in spec.secrets), self._answer_seconds)


def _modules(named: Sequence[str]) -> str:
    """Return the named modules of functions, and those of the environment, as the value of its variable."""
    if named and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `python -m` does the same; the script `reel-modal` does not
    return ",".join(filter(None, [*named, os.environ.get(MODULES_VARIABLE, "")]))


def _chosen(only: Sequence[str] | None, declared: Mapping[str, AnyFunction]) -> tuple[str, ...]:
    """Return the names of the functions to deploy."""
    if unknown := [name for name in only or () if name not in declared]:
        raise deployment_error("usage", f"--only: unknown: {', '.join(unknown)}; known are {', '.join(declared)}")
    return tuple(only or chosen_functions(declared))
