"""Run the unit tests, the tests of PyAV and the demo on every Python of this machine, with the newest packages.

Pythons are looked for on PATH and in pyenv. Each gets a virtual environment in .venvs/, which pip brings up to date
on each run. Only the standard library is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from setup_venv import OLDEST, ROOT, python_of

FOLDER = ROOT / ".venvs"
TESTS = ("tests/unit", "tests/media/test_pyav.py", "tests/media/test_probe.py", "tests/media/test_smart_trim.py")
PACKAGES = ("av", "modal", "numpy", "opencv-python", "opencv-python-headless", "onnx", "onnxruntime", "obstore")
FAILED = ("--last-failed", "--last-failed-no-failures=none")
LOOK = """
import json, platform, sys, sysconfig
print(json.dumps({
    "path": sys.executable, "version": platform.python_version(), "numbers": sys.version_info[:2],
    "final": sys.version_info.releaselevel == "final", "kind": platform.python_implementation(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""
VERSIONS = f"""
from importlib.metadata import distributions
found = {{one.name: one.version for one in distributions()}}
print(", ".join(f"{{name}} {{found[name]}}" for name in {PACKAGES} if name in found))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python of this machine."""

    path: str
    version: str


def main() -> int:
    """Test each Python and print a line for each; return 1 if one fails or none is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print what is found and test nothing")
    arguments = parser.parse_args()
    found = interpreters()
    if not found:
        print(f"no Python {OLDEST[0]}.{OLDEST[1]} or newer on PATH or in pyenv", file=sys.stderr)
        return 1
    for interpreter in found:
        print(f"found Python {interpreter.version}: {interpreter.path}", flush=True)
    if arguments.list:
        return 0
    results = [(interpreter, *test(interpreter)) for interpreter in found]
    print()
    for interpreter, problem, words in results:
        print(f"{'FAILED' if problem else 'ok':7} Python {interpreter.version:8} {problem or words}")
    return 1 if any(problem for _, problem, _ in results) else 0


def interpreters() -> list[Interpreter]:
    """Return one CPython for each version that is supported, the first on PATH before those of pyenv."""
    found: dict[str, Interpreter] = {}
    for path in dict.fromkeys(_candidates()):
        try:
            done = subprocess.run([path, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True)
            told = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue  # a shim of pyenv whose version is not chosen here
        if tuple(told["numbers"]) < OLDEST or told["version"] in found:
            continue
        if told["kind"] != "CPython" or told["free_threaded"] or not told["final"]:
            print(f"left out {told['path']}: only final releases of ordinary CPython are supported")
            continue
        found[told["version"]] = Interpreter(told["path"], told["version"])
    return sorted(found.values(), key=lambda one: [int(number) for number in one.version.split(".")])


def _candidates() -> Iterator[str]:
    """Yield what may be a Python, without the virtual environment that runs this."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if not (Path(folder) / ".." / "pyvenv.cfg").exists():
            yield from (str(path) for path in sorted(Path(folder).glob("python3*")) if _is_python(path.name))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (str(path) for path in sorted(pyenv.glob("versions/*/bin/python")))


def _is_python(name: str) -> bool:
    """Return whether a file is an interpreter, and not python3-config."""
    return name.removesuffix(".exe").removeprefix("python").replace(".", "").isdigit()


def test(interpreter: Interpreter) -> tuple[str, str]:
    """Return what failed, or nothing, and what was tested in how many seconds."""
    started = time.monotonic()
    print(f"\n== Python {interpreter.version}", flush=True)
    folder = FOLDER / interpreter.version
    python = str(python_of(folder))
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    steps = {
        "set-up": [interpreter.path, str(ROOT / "tools/setup_venv.py"), str(folder), "--group", "unit"],
        "tests": [python, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", *TESTS],
        "demo": [python, "-m", "reel_modal", "demo", "--output", str(folder / "demo")],
    }
    for name, command in steps.items():
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode != 0 and name == "tests":
            # A fault fails twice. A test that passes alone is flaky, and the log names it.
            done = subprocess.run([python, "-m", "pytest", *FAILED], cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            return f"{name}: {' '.join(command)}", ""
    told = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
    return "", f"{told}; {time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
