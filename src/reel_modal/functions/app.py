"""The Modal app, loaded by `modal deploy -m`: a thin wrapper of each function, whose body also runs locally.

No module of this package imports it: a host looks up functions by name. A container imports it again to find its
wrapper, and imports the module of the function itself only when a job runs: another function's packages are not in
its image.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from typing import Any

import modal
from modal.file_pattern_matcher import FilePatternMatcher

from reel_modal._support.modal_logging import hide_headers
from reel_modal.functions.catalog import AnyFunction, all_functions
from reel_modal.functions.contract import PACKAGE_NAME, Contract, local_contract
from reel_modal.functions.image_locks import BASE_LOCK, lock_of
from reel_modal.functions.specs import (
    SHIPPED_SUFFIXES,
    FunctionSpec,
    ImageSpec,
    app_name,
    chosen_functions,
)
from reel_modal.settings import JOB_VARIABLES, Settings

__all__ = ["app"]

hide_headers()  # in a container and in the process that publishes

_SETTINGS = Settings.from_env()
# Without `video` the driver's libraries for encoding and decoding are not mounted.
_GPU_ENVIRONMENT = {"NVIDIA_DRIVER_CAPABILITIES": "video,compute,utility"}

_COMPILE_STANDARD_LIBRARY = (
    "python -c 'import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path(\"stdlib\"), quiet=2)'"
)
_APT = (
    "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}"
    " && rm -rf /var/lib/apt/lists/*"
)
# pip compiles the bytecode of what it installs.
_UNLOCKED = "--no-cache-dir --disable-pip-version-check --root-user-action ignore"
_LOCKED = f"--require-hashes --only-binary :all: {_UNLOCKED}"

app: modal.App = modal.App(app_name(_SETTINGS))


def _image(spec: ImageSpec, packages: tuple[str, ...], *, gpu: bool = False) -> modal.Image:
    # Docker's Python has no bytecode of the standard library; without it, each cold start compiles what it imports.
    image = modal.Image.from_registry(spec.base).run_commands(_COMPILE_STANDARD_LIBRARY)
    lock = lock_of(spec)
    image = image.pip_install_from_requirements(str(lock or BASE_LOCK), extra_options=_LOCKED)
    if spec.apt:
        image = image.run_commands(_APT.format(shlex.join(spec.apt)))
    if lock is None:
        # All pins are given again, so that a further package cannot change the version of one of them.
        image = image.pip_install(*spec.packages, extra_options=_UNLOCKED)
    if gpu:
        image = image.env(_GPU_ENVIRONMENT)
    # By default, modal adds only Python files.
    ignored = ~FilePatternMatcher(*(f"**/*{end}" for end in SHIPPED_SUFFIXES))
    return image.add_local_python_source(*packages, ignore=ignored)


def _environment(contract: Contract) -> dict[str, str | None]:
    # The container imports this module again and must define the same app; it also needs the same price list.
    names = ("REEL_MODAL_APP", "REEL_MODAL_ENVIRONMENT", "REEL_MODAL_RATES", *JOB_VARIABLES)
    same = {name: os.environ[name] for name in names if name in os.environ}
    return {**same, "REEL_MODAL_CONTRACT": contract.to_json(), "ORT_DISABLE_TELEMETRY": "1"}


def _cores(cpu: float) -> dict[str, str | None]:
    """Return the variables with the reserved cores of a container, which sees all cores of its machine."""
    # Otherwise, importing numpy starts a thread of OpenBLAS for each of 64 cores: 0.3 s of CPU time.
    return {"REEL_MODAL_CPU": f"{cpu:g}", "OPENBLAS_NUM_THREADS": str(math.ceil(cpu))}


def _options(function: AnyFunction, spec: FunctionSpec, contract: Contract) -> dict[str, Any]:
    """Return the resources of a function as arguments of `modal.App.function`."""
    env = {**_environment(contract), **_cores(spec.cpu)}
    if spec.gpu:
        # If a paid GPU does not start, fail instead of running slowly on the CPU.
        env["REEL_MODAL_UPSCALE_PROVIDER"] = "cuda"
    return {
        "image": _image_of(function, spec),
        "env": env,
        "gpu": list(spec.gpu) if len(spec.gpu) > 1 else next(iter(spec.gpu), None),
        "cpu": spec.cpu,
        "memory": spec.memory_mb,
        "timeout": spec.timeout_seconds,
        "startup_timeout": spec.startup_timeout_seconds,
        "retries": spec.retries,
        "max_containers": spec.max_containers,
        "scaledown_window": spec.scaledown_window_seconds,
        "secrets": [modal.Secret.from_name(name) for name in spec.secrets],
    }


def _image_of(function: AnyFunction, spec: FunctionSpec) -> modal.Image:
    image = _image(spec.image, tuple(dict.fromkeys((PACKAGE_NAME, function.package))), gpu=bool(spec.gpu))
    if function.files is not None:
        for local, remote in function.files(_SETTINGS).items():
            image = image.add_local_file(local, remote)
    return image


def _container_options(row: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a function in its container: Modal only compares the number of image and secrets."""
    secrets = [] if row["secrets"] == "none" else row["secrets"].split(", ")
    return {
        "image": modal.Image.debian_slim(),
        "env": {"REEL_MODAL_CPU": row["cpu"]},
        "secrets": [modal.Secret.from_name(name) for name in secrets],
    }


def _register(name: str, options: Mapping[str, Any], contract: Contract) -> None:
    """Register the wrapper of one function on Modal."""
    row = contract.functions[name]

    def wrapper(request: dict[str, object], *how: dict[str, object]) -> dict[str, object]:
        from reel_modal.functions.container import run_in_container

        return run_in_container(row["module"], row["declared"], request, *how)

    # A container finds the wrapper by its name in this module.
    wrapper.__name__ = wrapper.__qualname__ = f"run_{name}"
    wrapper.__doc__ = f"Run {name}; takes the request and returns the result as dicts."
    globals()[wrapper.__name__] = app.function(name=name, **options)(wrapper)


def _register_contract(contract: Contract, options: Mapping[str, Any]) -> None:
    """Register the function that reports the contract of this deployment, and the actual state of its containers."""

    def report() -> dict[str, str]:
        from reel_modal.functions.container import container_facts

        return {"contract": contract.to_json(), **container_facts(contract)}

    report.__name__ = report.__qualname__ = "report_contract"
    globals()[report.__name__] = app.function(name=contract.name, **options)(report)


def _define_deployment() -> None:
    functions = all_functions()
    contract = local_contract(functions=functions)
    for function in (functions[name] for name in chosen_functions(functions)):
        for name, spec in function.deployed_specs().items():
            _register(name, _options(function, spec, contract), contract)
    packages = tuple(dict.fromkeys((PACKAGE_NAME, *(each.package for each in functions.values()))))
    options = {
        "image": _image(ImageSpec(), packages),
        "env": _environment(contract),
        "cpu": 0.25,
        "memory": 512,
        "timeout": 60,
        "max_containers": 1,
        "scaledown_window": 2,
    }
    _register_contract(contract, options)


def _define_in_container() -> None:
    # The deployed contract: the container's environment could give another one.
    contract = Contract.from_json(os.environ["REEL_MODAL_CONTRACT"])
    for name, row in contract.functions.items():
        _register(name, _container_options(row), contract)
    _register_contract(contract, {"image": modal.Image.debian_slim(), "env": _cores(1)})


if modal.is_local():
    _define_deployment()
else:
    _define_in_container()
