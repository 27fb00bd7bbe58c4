"""Make a process see another number of CPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The functions of glibc that count CPUs: x264 and libav use the affinity, x265 and Python the online CPUs.
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cpus(void) { return atoi(getenv("VISIBLE_CPUS")); }

static int fill(size_t size, cpu_set_t *set) {
    memset(set, 0, size);
    for (int cpu = 0; cpu < cpus(); cpu++) CPU_SET_S(cpu, size, set);
    return 0;
}

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) { return fill(size, set); }
int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *set) { return fill(size, set); }
int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *set) { return 0; }
int pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *set) { return 0; }
int get_nprocs(void) { return cpus(); }
int get_nprocs_conf(void) { return cpus(); }

long sysconf(int name) {
    static long (*original)(int);
    if (!original) original = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF ? cpus() : original(name);
}
"""


class VisibleCpus:
    """A preloaded library that fakes the number of CPUs.

    Args:
        folder: Directory in which the library is built.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if sys.platform != "linux" or compiler is None:
            reason = "the number of CPUs is faked on Linux, by a library that a C compiler builds"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        source, self._library = folder / "visible_cpus.c", folder / "visible_cpus.so"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True)
        assert self._counted(3) == (3, 3), "the preloaded library does not answer"

    def environment(self, count: int) -> dict[str, str]:
        """Return the variables with which a process sees `count` CPUs."""
        return {"LD_PRELOAD": str(self._library), "VISIBLE_CPUS": str(count)}

    def _counted(self, count: int) -> tuple[int, int]:
        code = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))"
        env = os.environ | self.environment(count)
        counts = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout.split()
        return int(counts[0]), int(counts[1])
