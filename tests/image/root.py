"""Build the root folder of an image from its Dockerfile lines: mmdebstrap for the base, bubblewrap for each RUN line."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# Change it together with the recipe below, so that cached roots are built again.
_RECIPE = "1"
_BASE = re.compile(r"FROM python:(?P<series>\d+\.\d+)(?:\.\d+)?-slim-(?P<suite>\w+)")
# What Docker's Python has besides a minimal Debian.
_BASE_PACKAGES = (
    "ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libncursesw6,libuuid1"
)
# The shell's last line is the CPU time of the command.
_TIMED = '/bin/sh -c "$0"; status=$?; times; exit $status'
_KEYRINGS = Path("/usr/share/keyrings")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PASSED_ON = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "no_proxy")


class NoRootError(Exception):
    """This machine cannot build the root of an image; the message says why."""


class BuildError(Exception):
    """A line of an image failed."""


@dataclass(frozen=True)
class Step:
    """One line of an image: its duration in seconds, and the size in MB that it added."""

    line: str
    seconds: float
    cpu_seconds: float
    megabytes: float


@dataclass(frozen=True)
class Root:
    """The root folder of a built image, and how each line contributed to it."""

    folder: Path
    steps: tuple[Step, ...]
    environment: dict[str, str]

    @property
    def megabytes(self) -> float:
        return sum(step.megabytes for step in self.steps)


def missing_tools() -> list[str]:
    """Return what this machine lacks to build and to run an image; empty if it lacks nothing."""
    missing = [name for name in ("mmdebstrap", "bwrap", "setpriv", "unshare", "cc") if shutil.which(name) is None]
    if os.name != "posix" or os.geteuid() != 0:
        missing.append("the rights of root")
    if platform.machine() != "x86_64":
        missing.append("an x86-64 processor")
    return missing


def build(lines: Sequence[str], files: Mapping[str, bytes], cache: Path) -> Root:
    """Return the root of an image; unchanged lines at its start are taken from `cache`.

    Args:
        lines: Dockerfile lines, those of base images first.
        files: Content of the files that COPY lines name.
        cache: Folder with one folder for each built step.

    Raises:
        NoRootError: This machine cannot build the base.
        BuildError: A line failed; the message has the line and the end of its output.
    """
    if missing := missing_tools():
        raise NoRootError(f"an image cannot be built here without {', '.join(missing)}")
    cache.mkdir(parents=True, exist_ok=True)
    digest, folder = hashlib.sha256(_RECIPE.encode()), Path()
    steps: list[Step] = []
    environment: dict[str, str] = {}
    for line in (line for line in lines if line != "FROM base" and not line.startswith(("CMD", "ENTRYPOINT"))):
        copied = files[line.split()[1]] if line.startswith("COPY") else b""
        digest.update(f"{line}\0".encode() + copied + b"\0")
        if line.startswith("ENV "):
            pairs = (part.partition("=") for part in shlex.split(line.removeprefix("ENV ")))
            environment |= {name: value for name, _, value in pairs}
            continue
        step = cache / digest.hexdigest()[:16]
        if not step.is_dir():
            partial = step.with_name(f"{step.name}.{os.getpid()}")
            partial.mkdir()
            try:
                _built(line, copied, folder, partial, environment)
                partial.rename(step)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(step)
        folder = step / "root"
        steps.append(Step(**json.loads((step / "step.json").read_text())))
    return Root(folder, tuple(steps), environment)


def delete_unused(cache: Path, days: float = 7.0) -> None:
    """Delete the steps in `cache` that no build has used for some days."""
    for step in cache.iterdir():
        if (step / "step.json").exists() and time.time() - step.stat().st_mtime > days * 86_400:
            shutil.rmtree(step)


def _built(line: str, copied: bytes, previous: Path, step: Path, environment: Mapping[str, str]) -> None:
    """Build one step: the root after a line, and its figures."""
    root, before = step / "root", 0.0
    if not line.startswith("FROM"):
        before = megabytes(previous)
        subprocess.run(["cp", "-a", "--reflink=auto", previous, root], check=True)
    started, cpu_seconds = time.monotonic(), 0.0
    if line.startswith("FROM"):
        cpu_seconds = -_cpu_of_children()
        _make_base(line, root)
        cpu_seconds += _cpu_of_children()
    elif line.startswith("COPY"):
        target = root / line.split()[2].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(copied)
    elif line.startswith("RUN "):
        cpu_seconds = _run_line(line, root, environment)
    else:
        raise BuildError(f"unknown line: {line}")
    made = Step(line, round(time.monotonic() - started, 2), round(cpu_seconds, 2), round(megabytes(root) - before, 1))
    (step / "step.json").write_text(json.dumps(asdict(made)))


def _run_line(line: str, root: Path, environment: Mapping[str, str]) -> float:
    """Run a line in the root, and return its CPU seconds."""
    with _apt_configuration(root) as apt:
        variables = {
            "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PIP_CERT": str(_CERTIFICATES),
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            **environment,
        }
        settings = [part for name, value in variables.items() for part in ("--setenv", name, value)]
        # The network's names and certificates are those of this machine, as they are in any container.
        bound = ["/etc/resolv.conf", "/etc/hosts", str(_CERTIFICATES)]
        done = subprocess.run(
            [
                *(
                    "bwrap",
                    "--bind",
                    root,
                    "/",
                    "--dev",
                    "/dev",
                    "--proc",
                    "/proc",
                    "--perms",
                    "1777",
                    "--tmpfs",
                    "/tmp",
                ),
                *(part for path in bound for part in ("--ro-bind", path, path)),
                *("--ro-bind", apt, "/etc/apt", "--unshare-pid", "--die-with-parent", "--cap-add", "ALL"),
                *("--clearenv", *settings, "--", "/bin/sh", "-c", _TIMED, line.removeprefix("RUN ")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BuildError(f"exit status {done.returncode}: {line}\n{tail}")
    minutes_and_seconds = re.findall(r"(\d+)m([\d.]+)s", done.stdout.splitlines()[-1])
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in minutes_and_seconds)


def _make_base(line: str, root: Path) -> None:
    """Make the root of Docker's Python: a minimal Debian, and a Python in /usr/local without bytecode and tests."""
    match = _BASE.fullmatch(line)
    if match is None:
        raise NoRootError(f"unknown base, so it cannot be built: {line}")
    python = _relocatable_python(match["series"])
    with _apt_sources(match["suite"]) as sources:
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_BASE_PACKAGES}"]
        keyring = [f"--keyring={_KEYRINGS}"] if _KEYRINGS.is_dir() else []
        done = subprocess.run(
            [*command, *keyring, match["suite"], root, sources], capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise NoRootError(f"mmdebstrap could not build {match['suite']}:\n{done.stderr[-2000:]}")
    shutil.rmtree(root / "etc/apt/apt.conf.d/99mmdebstrap", ignore_errors=True)
    local = root / "usr/local"
    shutil.copytree(python, local, symlinks=True, dirs_exist_ok=True, ignore=_not_in_docker)
    for script in (local / "bin").iterdir():
        content = script.read_bytes()
        if content.startswith(b"#!") and not script.is_symlink():
            script.write_bytes(re.sub(rb"\A#!\S*python\S*", b"#!/usr/local/bin/python3", content))
    subprocess.run(["chroot", root, "/sbin/ldconfig"], check=True)
    check = "import ctypes, lzma, bz2, sqlite3, ssl, pip, uuid"
    subprocess.run(["chroot", root, "/usr/local/bin/python", "-I", "-c", check], check=True)


def _not_in_docker(folder: str, names: list[str]) -> set[str]:
    """Return the files of a Python that Docker's has not: tests, bytecode, and packages other than pip."""
    ignored = shutil.ignore_patterns("__pycache__", "test", "tests", "idle_test", "*.a", "*.pyc")(folder, names)
    if Path(folder).name == "site-packages":
        ignored |= {name for name in names if not name.startswith(("pip", "setuptools", "_distutils_hack"))}
    return ignored


def _relocatable_python(series: str) -> Path:
    """Return the prefix of a Python that runs from another folder: pyenv's or uv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    for folder in (*sorted(pyenv.glob(f"{series}.*")), *sorted(managed.glob(f"cpython-{series}.*-linux-x86_64-gnu"))):
        if (folder / "bin/python").exists():
            return folder
    raise NoRootError(f"no Python {series} of pyenv or uv: pyenv install {series}, or uv python install {series}")


@contextmanager
def _apt_configuration(root: Path) -> Iterator[Path]:
    """Yield this machine's /etc/apt with the suite of `root`."""
    release = (root / "etc/os-release").read_text()
    suite = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    assert suite is not None, release
    with _apt_sources(suite[1]) as sources:
        folder = sources.with_name("apt")
        shutil.copytree("/etc/apt", folder, ignore=shutil.ignore_patterns("sources.list*", "preferences*"))
        shutil.copy(sources, folder / "sources.list")
        (folder / "sources.list.d").mkdir()
        (folder / "preferences.d").mkdir()
        yield folder


@contextmanager
def _apt_sources(suite: str) -> Iterator[Path]:
    """Yield a sources.list for a suite of Debian on the mirror that this machine uses, in a folder of its own."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    own = release[1] if release else ""
    pairs = dict.fromkeys(tuple(line.split()) for line in shown.splitlines())
    lines = [
        f"deb {uri} {name.replace(own, suite)} main"
        for uri, name in pairs
        if name in {own, f"{own}-updates", f"{own}-security"} and "debian" in uri
    ]
    if not lines:
        raise NoRootError("apt has no sources of Debian: run apt-get update on Debian")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # apt reads it as another user
        sources = Path(folder, "sources.list")
        sources.write_text("\n".join(lines) + "\n")
        yield sources


def megabytes(folder: Path) -> float:
    """Return the size of a folder on disk, in MB."""
    shown = subprocess.run(["du", "--summarize", "--block-size=1", folder], capture_output=True, check=True).stdout
    return int(shown.split()[0]) / 1e6


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
