"""A container of Modal as a local process in the root of an image: bubblewrap or gVisor, a memory limit, faked CPUs.

The root is read-only, only /tmp and the store are writable, the user is 65534. `main` is the Python of
the loopback plane's containers: it reads which function the container is for, and starts Modal's entrypoint in its image.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.image import gvisor

PYTHON = "/usr/local/bin/python"
USER = "65534"
CGROUPS = Path("/sys/fs/cgroup")
_PROJECT = Path(__file__).resolve().parents[2]
_ARGUMENTS = "/__modal/arguments.pb"
_CPUS_LIBRARY = "/__modal/visible_cpus.so"
_PASSED_ON = ("MODAL_", "PYTHONUNBUFFERED", "LANG", "NO_PROXY", "REEL_MODAL_")


@dataclass(frozen=True)
class Sandbox:
    """What all containers have.

    Attributes:
        roots: Root folder of the image of each function; `contract` is that of the function that reports the contract.
        environments: Variables of the image of each function.
        modal: Folder with Modal's client, as Modal mounts it.
        dependencies: Folder with the packages that Modal's client needs.
        store: Folder that is /store.
        cpus_library: Library that fakes the number of CPUs.
        cpus: Number of CPUs that a container sees.
        memory_mb: Memory limit of a container in MiB.
        nameserver: Address of the only name server.
        records: Folder for the cgroup names of the containers, by function.
        mark: Variables that tests use to find their processes.
        runtime: `bubblewrap`, or `gvisor`, as on Modal.
    """

    roots: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    modal: str
    dependencies: str
    store: str
    cpus_library: str
    cpus: int
    memory_mb: int
    nameserver: str
    records: str
    mark: Mapping[str, str] = field(default_factory=dict)
    runtime: str = "bubblewrap"

    @property
    def state(self) -> Path:
        """Folder of the containers in gVisor."""
        return Path(self.records).with_name("gvisor")

    def write(self, folder: Path) -> Path:
        """Write the executable that takes the place of the containers' Python; `folder` is readable by all users."""
        settings, executable = folder / "sandbox.json", folder / "python"
        settings.write_text(json.dumps(asdict(self)))
        start = f"import sys; sys.path.insert(0, {str(_PROJECT)!r}); from tests.image.sandbox import main; main()"
        executable.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" {settings} "$@"\n')
        executable.chmod(0o755)
        return executable

    def command(
        self,
        function: str,
        process: Sequence[str],
        *,
        temporary: Path,
        source: Path,
        arguments: Path | None,
        variables: Mapping[str, str],
    ) -> list[str]:
        """Return the command line that runs a process in the image of a function.

        Args:
            function: Name of the function.
            process: Command line inside.
            temporary: Folder that is /tmp.
            source: Folder that is /root.
            arguments: File with the arguments of Modal's entrypoint.
            variables: Variables of the process.
        """
        root = Path(self.roots[function])
        nameserver = temporary.with_name(f"{temporary.name}.resolv.conf")
        nameserver.write_text(f"nameserver {self.nameserver}\noptions timeout:1 attempts:1\n")
        values = {
            "PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "TMPDIR": "/tmp",
            "PYTHONPATH": "/root:/pkg:/__modal/deps",
            **self.environments[function],
            **self.mark,
            **variables,
            "LD_PRELOAD": _CPUS_LIBRARY,
            "VISIBLE_CPUS": str(self.cpus),
            "MODAL_CONTAINER_ARGUMENTS_PATH": _ARGUMENTS,
        }
        bound = {
            "/root": source,
            "/pkg": Path(self.modal),
            "/__modal/deps": Path(self.dependencies),
            _CPUS_LIBRARY: Path(self.cpus_library),
            "/etc/resolv.conf": nameserver,
        }
        if arguments is not None:
            bound[_ARGUMENTS] = arguments
        writable = {"/tmp": temporary, "/store": Path(self.store)}
        if self.runtime == gvisor.NAME:
            return gvisor.gvisor_command(
                self.state,
                root,
                process=process,
                variables=values,
                read_only=bound,
                writable=writable,
                user=int(USER),
            )
        return [
            *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"),
            *(part for entry in _entries(root) for part in entry),
            *("--dev", "/dev", "--proc", "/proc", "--perms", "0755", "--dir", "/__modal"),
            *(part for inside, outside in bound.items() for part in ("--ro-bind", str(outside), inside)),
            *(part for inside, outside in writable.items() for part in ("--bind", str(outside), inside)),
            *("--remount-ro", "/"),
            *("--chdir", "/root", "--clearenv"),
            *(part for name, value in values.items() for part in ("--setenv", name, value)),
            # Modal's containers run as root; without its rights, a write outside /tmp fails in a second way.
            *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"),
            *("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"),
            *process,
        ]


def _entries(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the options that bind each folder at the top of the root; the top itself has further folders."""
    for path in sorted(root.iterdir()):
        inside = f"/{path.name}"
        if path.is_symlink():
            yield "--symlink", str(path.readlink()), inside
        elif path.is_file() or path.name not in {"dev", "proc", "tmp", "root"}:
            yield "--ro-bind", str(path), inside


def memory_cgroup(name: str) -> Path:
    """Return the folder of a memory cgroup, of version 1 or 2."""
    return (CGROUPS / "memory" if (CGROUPS / "memory").is_dir() else CGROUPS) / name


def has_memory_limits() -> bool:
    """Return whether this process may limit the memory of others."""
    probe = memory_cgroup(f"reel-modal-probe-{os.getpid()}")
    try:
        probe.mkdir()
    except OSError:
        return False
    found = any((probe / file).exists() for file in ("memory.limit_in_bytes", "memory.max"))
    probe.rmdir()
    return found


def join_memory_cgroup(name: str, memory_mb: int) -> None:
    """Limit the memory of this process and of all that it starts."""
    folder = memory_cgroup(name)
    folder.mkdir()
    limit = next(path for path in (folder / "memory.limit_in_bytes", folder / "memory.max") if path.exists())
    limit.write_text(str(memory_mb << 20))
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def take_peak_mb(name: str) -> float:
    """Return the largest memory of an ended cgroup in MiB, its page cache included, and remove it."""
    folder = memory_cgroup(name)
    peak = next(path for path in (folder / "memory.max_usage_in_bytes", folder / "memory.peak") if path.exists())
    value = int(peak.read_text()) / 2**20
    with contextlib.suppress(OSError):
        folder.rmdir()
    return value


def main() -> None:
    """Start Modal's entrypoint; the environment and the working directory are those of the loopback plane."""
    from modal_proto import api_pb2

    sandbox = Sandbox(**json.loads(Path(sys.argv[1]).read_text()))
    arguments = Path(os.environ["MODAL_CONTAINER_ARGUMENTS_PATH"])
    container = api_pb2.ContainerArguments.FromString(arguments.read_bytes())
    names = {identity: name for name, identity in container.app_layout.function_ids.items()}
    name = names[container.function_id]
    function = "contract" if name.startswith("contract-") else name
    temporary = Path(os.environ["TMPDIR"])
    temporary.chmod(0o1777)
    cgroup = f"reel-modal-{container.task_id}"
    Path(sandbox.records, cgroup).write_text(function)
    variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    command = sandbox.command(
        function,
        [PYTHON, *sys.argv[2:]],
        temporary=temporary,
        source=Path(os.environ["PYTHONPATH"]),
        arguments=arguments,
        variables=variables,
    )
    join_memory_cgroup(cgroup, sandbox.memory_mb)
    os.execvp(command[0], command)  # noqa: S606
