"""What a deployment and its hosts must agree on: version, source, and each function's resources and parameters.

Pure but for reading this package's own files; it must not load modal. A deployment carries the contract that it was
made from in the name of one more function, so that the two are published, and rolled back, in one step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from reel_modal.functions.requests import REQUESTS
from reel_modal.functions.specs import SHIPPED_SUFFIXES, FunctionSpec, ImageSpec, load_specs
from reel_modal.schema import RenderResult
from reel_modal.version import VERSION

__all__ = ["Contract", "Difference", "differences", "ffmpeg_text", "local_contract", "source_hash", "spec_row"]

_PREFIX: Final = "contract-"
_HASH_LENGTH: Final = 12
_PACKAGE: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same in a deployment and here.

    Attributes:
        field: Such as `gpu`, `image`, `source`.
        there: What is deployed, for a person to read.
        here: What this package would deploy.
    """

    field: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.field}: {self.there} is deployed, {self.here} is here"


@dataclass(frozen=True, slots=True)
class Contract:
    """What one version of this package, with one environment, deploys.

    Attributes:
        version: Of the package.
        source: Hash of its files.
        functions: By name and field, as text: `gpu`, `timeout_seconds`, `signature`, …
    """

    version: str
    source: str
    functions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that stand for all of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:_HASH_LENGTH]

    @property
    def name(self) -> str:
        """The name of the function that says so on Modal, such as `contract-0-1-0-5f2b8c9e1d07`."""
        # A dot in a function's name would make it a method.
        version = "".join(letter if letter.isalnum() else "-" for letter in self.version)
        return f"{_PREFIX}{version}-{self.hash}"

    @staticmethod
    def name_among(names: Iterable[str]) -> str | None:
        """Return which of the names of a deployment's functions is that of a contract, if one is."""
        return next((name for name in sorted(names) if name.startswith(_PREFIX)), None)

    def to_json(self) -> str:
        """Return the contract as one line."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it back.

        Raises:
            ValueError: It is none.
        """
        try:
            raw = json.loads(text)
            functions = {
                name: {key: str(value) for key, value in row.items()} for name, row in raw["functions"].items()
            }
            return cls(str(raw["version"]), str(raw["source"]), functions)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no contract: {text[:200]!r}") from error


def local_contract(env: Mapping[str, str] | None = None, *, package: Path = _PACKAGE) -> Contract:
    """Return the contract of this package, as it is on this machine's disk, with the environment `env`.

    Raises:
        ConfigError: The environment cannot be read; the message names the variable.
    """
    rows = {name: spec_row(spec) | {"signature": _signature(name)} for name, spec in load_specs(env).items()}
    return Contract(VERSION, source_hash(package), rows)


def differences(name: str, there: Contract, here: Contract) -> list[Difference]:
    """Return what is not the same for the function `name`."""
    found = [
        Difference(what, getattr(there, what), getattr(here, what))
        for what in ("version", "source")
        if getattr(there, what) != getattr(here, what)
    ]
    old, new = there.functions.get(name, {}), here.functions.get(name, {})
    keys = [key for key in dict.fromkeys([*new, *old]) if old.get(key) != new.get(key)]
    return found + [Difference(key, *_apart(old.get(key, "nothing"), new.get(key, "nothing"))) for key in keys]


def _apart(old: str, new: str) -> tuple[str, str]:
    """Return what of two lists is not in the other one."""
    there, here = old.split(", "), new.split(", ")
    gone, came = [part for part in there if part not in here], [part for part in here if part not in there]
    return ", ".join(gone) or "nothing", ", ".join(came) or "nothing"


def source_hash(package: Path = _PACKAGE) -> str:
    """Return a hash of the files of the package that a deployment sends.

    Line ends of code do not count, so that the same commit has the same hash on every system.
    """
    digest = hashlib.sha256()
    files = (path for path in package.rglob("*") if path.suffix in SHIPPED_SUFFIXES)
    for name, path in sorted((path.relative_to(package).as_posix(), path) for path in files):
        content = path.read_bytes()
        if path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:_HASH_LENGTH]


def spec_row(spec: FunctionSpec) -> dict[str, str]:
    """Return the resources of a function as text, for tables and for comparing."""
    row = {}
    for known in dataclasses.fields(spec):
        if known.name != "name":
            row[known.name] = _text(getattr(spec, known.name))
    return row | {"ffmpeg": ffmpeg_text(spec.image.ffmpeg, "imageio-ffmpeg")}


def ffmpeg_text(version: str, origin: str) -> str:
    """Return which ffmpeg does everything but hardware encoding and decoding: `9.0.2 from imageio-ffmpeg`."""
    return f"{version} from {origin}"


def _text(value: object) -> str:
    if isinstance(value, ImageSpec):
        return ", ".join([f"Python {value.python_version}", *value.apt, *value.pip])
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _signature(name: str) -> str:
    """Return the parameters of a function: the fields of its request and of its result."""
    request = REQUESTS.get(name)
    return f"{_fields(request)} -> {_fields(RenderResult)}" if request is not None else "no request yet"


def _fields(kind: type[Any]) -> str:
    # The annotations are text in the source, so they are the same under every version of Python.
    return f"{kind.__name__}({', '.join(f'{known.name}: {known.type}' for known in dataclasses.fields(kind))})"
