"""Build the images of the functions, before their containers are tested without a network; `make test-image` runs it.

Ends with 77 if this machine cannot build them, and says why.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path
from tests.image.definitions import BUILDER_VERSIONS, Definition, captured_images
from tests.image.root import BuildError, NoRootError, Root, build, delete_unused, missing_tools
from tests.image.sandbox import has_memory_limits

from reel_modal.functions.specs import ImageSpec

NOT_HERE = 77
CACHE = user_cache_path("reel-modal") / "images"
# Largest size of an image in MB, base included: about a tenth above the measured size.
BUDGETS_MB = {"cpu": 850, "gpu": 1500, "upscale": 4200}


@dataclass(frozen=True)
class Built:
    """The images of all functions, and the folders that Modal mounts into each container."""

    definitions: dict[str, Definition]
    roots: dict[str, Root]
    modal: Path
    dependencies: Path


def budget_mb(definition: Definition) -> int:
    """Return the largest allowed size of an image."""
    if any(b"onnxruntime-gpu" in content for content in definition.files.values()):
        return BUDGETS_MB["upscale"]
    return BUDGETS_MB["gpu" if any("apt-get install" in line for line in definition.lines) else "cpu"]


def built_images(cache: Path = CACHE) -> Built:
    """Return the images of this checkout; what is not in the cache is built.

    Raises:
        NoRootError: This machine cannot build them.
        BuildError: A line failed.
    """
    if missing := missing_tools():
        raise NoRootError(f"this machine lacks {', '.join(missing)}")
    if not has_memory_limits():
        raise NoRootError("the memory of a process cannot be limited here (cgroups are read-only)")
    with TemporaryDirectory() as folder:
        definitions = captured_images(Path(folder), BUILDER_VERSIONS[-1])
    roots: dict[str, Root] = {}
    try:
        for name, definition in definitions.items():
            roots[name] = build(definition.lines, definition.files, cache)
        return Built(definitions, roots, _modal(cache), _dependencies(cache))
    except (BuildError, subprocess.CalledProcessError) as error:
        if not _has_registry():
            raise NoRootError("no package registry answers") from error
        raise


def _modal(cache: Path) -> Path:
    """Copy Modal's client from this environment, with its bytecode."""
    from importlib.metadata import version

    folder = cache / f"modal-{version('modal')}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in ("modal", "modal_proto", "modal_version", "synchronicity"):
            spec = find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            shutil.copytree(Path(spec.origin).parent, partial / name)
        partial.rename(folder)
    return folder


def _dependencies(cache: Path) -> Path:
    """Install the packages that Modal mounts for its client."""
    modal = find_spec("modal")
    assert modal is not None
    assert modal.origin is not None
    folder = cache / f"dependencies-{BUILDER_VERSIONS[-1]}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        pins = (Path(modal.origin).parent / "builder" / f"{BUILDER_VERSIONS[-1]}.txt").read_text().split()
        # A pinned version may have been withdrawn in favour of its post-release, which `.*` accepts too.
        wheels = ["--only-binary", ":all:", "--target", partial, *(f"{pin}.*" for pin in pins)]
        python = f"--python-version={ImageSpec().python_version}"
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", python, *wheels], check=True)
        partial.rename(folder)
    return folder


def _has_registry() -> bool:
    asked = [sys.executable, "-m", "pip", "index", "versions", "pip"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Build all images, and print what each line took."""
    try:
        built = built_images()
    except NoRootError as error:
        print(f"the images are not tested here: {error}", file=sys.stderr)
        return NOT_HERE
    delete_unused(CACHE)
    seen: set[Path] = set()
    for name, root in built.roots.items():
        if root.folder in seen:
            continue
        seen.add(root.folder)
        print(f"{name}: {root.megabytes:.0f} MB of {budget_mb(built.definitions[name])}")
        for step in root.steps:
            print(
                f"  {step.megabytes:7.0f} MB {step.seconds:6.1f} s {step.cpu_seconds:6.1f} CPU s  {step.line[:100]}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
