"""Gets the packages that `sources.tsv` names, through apt and pip, and unpacks them side by side.

Needs Debian 12's apt and nothing else: `python -m training.fetch FOLDER`.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from training.sources import read_sources


def fetch(folder: Path) -> None:
    """Download and unpack every package once; what is there already is kept."""
    for package in sorted({source.package for source in read_sources()}):
        kind, name = package.split(":", 1)
        target = folder / name.split("==")[0]
        if target.exists():
            continue
        downloads = folder / "downloads" / name
        downloads.mkdir(parents=True, exist_ok=True)
        if kind == "deb":
            subprocess.run(["apt-get", "download", name], cwd=downloads, check=True)
            subprocess.run(["dpkg-deb", "-x", next(downloads.glob("*.deb")), target], check=True)
        else:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, name],
                check=True,
            )
            with zipfile.ZipFile(next(downloads.glob("*.whl"))) as wheel:
                wheel.extractall(target)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
