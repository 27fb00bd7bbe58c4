"""Contract between a deployment and its hosts: version, source, and each function's resources and parameters.

Reads only the files of this package and of the packages that declare functions; does not import modal. A deployment
stores its contract in the name of an additional function, so that both are published, and rolled back, in one step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

from reel_modal._version import VERSION
from reel_modal.errors import ConfigError
from reel_modal.functions.catalog import AnyFunction, all_functions
from reel_modal.functions.image_locks import lock_of
from reel_modal.functions.specs import SHIPPED_SUFFIXES, FunctionSpec, ImageSpec

__all__ = [
    "PACKAGE_NAME",
    "Contract",
    "Difference",
    "differences",
    "ffmpeg_text",
    "local_contract",
    "package_folder",
    "package_text",
    "source_hash",
    "spec_row",
]

_PREFIX: Final = "contract-"
_HASH_LENGTH: Final = 12
_PACKAGE: Final = Path(__file__).resolve().parent.parent
PACKAGE_NAME: Final = _PACKAGE.name
"""Name of this package."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field whose deployed and local values differ.

    Attributes:
        field: Name of the field, such as `gpu`, `image`, `source`.
        deployed: The deployed value as text.
        local: The value that this package would deploy.
    """

    field: str
    deployed: str
    local: str

    def __str__(self) -> str:
        return f"{self.field}: {self.deployed} is deployed, {self.local} is local"


@dataclass(frozen=True, slots=True)
class Contract:
    """Description of the deployment that one version of this package makes in one environment.

    Attributes:
        version: Version of the package.
        source: Hash of its files.
        functions: Values by function name and field, as text: `gpu`, `timeout_seconds`, `signature`, …
    """

    version: str
    source: str
    functions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the contract's SHA-256."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:_HASH_LENGTH]

    @property
    def name(self) -> str:
        """Name of the Modal function that stands for this contract, such as `contract-0-1-0-5f2b8c9e1d07`."""
        # A dot in a function's name would make it a method.
        version = "".join(letter if letter.isalnum() else "-" for letter in self.version)
        return f"{_PREFIX}{version}-{self.hash}"

    @staticmethod
    def name_among(names: Iterable[str]) -> str | None:
        """Return the name of the contract function among the function names of a deployment; None if not found."""
        return next((name for name in sorted(names) if name.startswith(_PREFIX)), None)

    def to_json(self) -> str:
        """Return the contract as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the text that `to_json` returned.

        Raises:
            ValueError: The text is not a contract.
        """
        try:
            raw = json.loads(text)
            functions = {
                name: {key: str(value) for key, value in row.items()} for name, row in raw["functions"].items()
            }
            return cls(str(raw["version"]), str(raw["source"]), functions)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a valid contract: {text[:200]!r}") from error


def local_contract(
    env: Mapping[str, str] | None = None,
    *,
    functions: Mapping[str, AnyFunction] | None = None,
    package: Path = _PACKAGE,
) -> Contract:
    """Return the contract of the functions on this machine, with the environment variables `env`.

    Args:
        env: Default: this process's environment.
        functions: The functions by name; default `all_functions()`.
        package: Folder of this package.

    Raises:
        ConfigError: A variable is not valid, or a package cannot be found; the message names it.
    """
    functions = all_functions(env=env) if functions is None else functions
    rows = {name: row for each in functions.values() for name, row in _rows(each, env).items()}
    return Contract(VERSION, source_hash(package), rows)


def _rows(function: AnyFunction, env: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """Return the rows of the functions on Modal that a declared function needs."""
    shared = {"declared": function.name, "signature": _signature(function), "module": function.module}
    if function.package != PACKAGE_NAME:
        shared["package"] = package_text(function.package)
    return {name: spec_row(spec) | shared for name, spec in function.deployed_specs(env).items()}


def package_text(name: str) -> str:
    """Return the name of a top-level package that declares functions, and the hash of its files.

    Raises:
        ConfigError: It cannot be found.
    """
    return f"{name} {source_hash(package_folder(name))}"


def package_folder(name: str) -> Path:
    """Return the folder of a top-level package, or the file of a top-level module; does not import it.

    Raises:
        ConfigError: It cannot be found, or is in no folder.
    """
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        return Path(spec.origin)
    raise ConfigError(f"the package {name!r} is not found, so its files cannot be sent or compared")


def differences(name: str, deployed: Contract, local: Contract) -> list[Difference]:
    """Return the fields of the function `name` that differ."""
    changed = [
        Difference(attribute, getattr(deployed, attribute), getattr(local, attribute))
        for attribute in ("version", "source")
        if getattr(deployed, attribute) != getattr(local, attribute)
    ]
    old, new = deployed.functions.get(name, {}), local.functions.get(name, {})
    keys = [key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key)]
    return changed + [Difference(key, *_apart(old.get(key, "nothing"), new.get(key, "nothing"))) for key in keys]


def _apart(old: str, new: str) -> tuple[str, str]:
    """Return, for each of two lists as text, the entries that the other one lacks."""
    deployed, local = old.split(", "), new.split(", ")
    removed = [part for part in deployed if part not in local]
    added = [part for part in local if part not in deployed]
    return ", ".join(removed) or "nothing", ", ".join(added) or "nothing"


def source_hash(package: Path = _PACKAGE) -> str:
    """Return a hash of the files of a package, or of one module, that a deployment sends.

    Line endings of code are normalized, so that the same commit has the same hash on every system.
    """
    digest = hashlib.sha256()
    if package.is_file():
        package, files = package.parent, [package]
    else:
        files = [path for path in package.rglob("*") if path.suffix in SHIPPED_SUFFIXES]
    for name, path in sorted((path.relative_to(package).as_posix(), path) for path in files):
        content = path.read_bytes()
        if path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:_HASH_LENGTH]


def spec_row(spec: FunctionSpec) -> dict[str, str]:
    """Return the resources of a function as text, for tables and comparisons."""
    row = {}
    for each in dataclasses.fields(spec):
        if each.name != "name":
            row[each.name] = _text(getattr(spec, each.name))
    return row | {"ffmpeg": ffmpeg_text(spec.image.ffmpeg, "imageio-ffmpeg")}


def ffmpeg_text(version: str, origin: str) -> str:
    """Return the ffmpeg for everything except hardware encoding and decoding: `9.0.2 from imageio-ffmpeg`."""
    return f"{version} from {origin}"


def _text(value: object) -> str:
    if isinstance(value, ImageSpec):
        return ", ".join([value.base, *value.apt, *value.packages, *_lock_text(value)])
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lock_text(image: ImageSpec) -> list[str]:
    """Return a hash of the lock file, since it also determines the packages that these packages need."""
    lock = lock_of(image)
    if lock is None:
        return []
    text = lock.read_bytes().replace(b"\r\n", b"\n")
    return [f"lock {hashlib.sha256(text).hexdigest()[:_HASH_LENGTH]}"]


def _signature(function: AnyFunction) -> str:
    """Return the parameters of a function: the fields of its request and of its result."""
    return f"{_fields(function.request)} -> {_fields(function.result)}"


def _fields(kind: type[Any]) -> str:
    # The annotations are strings, as in the source, so they are the same in every version of Python.
    if dataclasses.is_dataclass(kind):
        fields = [(each.name, each.type) for each in dataclasses.fields(kind)]
    else:
        fields = [(name, kind.__annotations__[name]) for name in kind.__annotations__]
    return f"{kind.__name__}({', '.join(f'{name}: {_annotation(each)}' for name, each in fields)})"


def _annotation(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))
