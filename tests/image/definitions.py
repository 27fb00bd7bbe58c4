"""The images that a deployment asks Modal to build, as the control plane receives them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.integration.modal_app import deploy

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

GOLDEN = Path(__file__).with_name("definitions.txt")
BUILDER_VERSIONS = ("2025.06", "2026.10")


@dataclass(frozen=True)
class Definition:
    """An image: its Dockerfile lines, those of its bases first, and the files that they copy."""

    lines: tuple[str, ...]
    files: Mapping[str, bytes]

    @property
    def text(self) -> str:
        """The lines, each copied file followed by its hash."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        lines = [
            f"{line}  # sha256 {digests[line.split()[1]]}" if line.startswith("COPY") else line for line in self.lines
        ]
        return "\n".join(line for line in lines if line != "FROM base")


def deployed_images(plane: LoopbackPlane, app: str) -> dict[str, Definition]:
    """Return the image of each function of an app."""
    return {
        # The name of the contract has a hash of the package.
        ("contract" if name.startswith("contract-") else name): Definition(
            function.image_commands, function.image_files
        )
        for name, function in plane.functions(app).items()
    }


def captured_images(folder: Path, builder_version: str, **variables: str) -> dict[str, Definition]:
    """Deploy to a plane whose workspace has a version of the image builder, and return the images."""
    from tests.integration.loopback.plane import LoopbackPlane

    with LoopbackPlane(folder, builder_version=builder_version) as plane:
        plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": "memory:"})
        deploy(plane, **variables)
        return deployed_images(plane, "reel-modal-test")


def as_text(images: Mapping[str, Definition]) -> str:
    """Return the images as text: the functions that use each, and its lines."""
    users: dict[str, list[str]] = {}
    for name, image in sorted(images.items()):
        users.setdefault(image.text, []).append(name)
    return "\n\n".join(f"# {', '.join(names)}\n{text}" for text, names in users.items()) + "\n"


def main() -> None:
    """Print the images as text."""
    with TemporaryDirectory() as folder:
        print(as_text(captured_images(Path(folder), BUILDER_VERSIONS[-1])), end="")


if __name__ == "__main__":
    main()
