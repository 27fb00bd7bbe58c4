"""The scripts that create virtual environments and select the tested Python versions, and the search for a browser."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.browser import find_chromium

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def fake_python(path: Path, version: str, **other: object) -> None:
    """Write a script that prints the description of such a Python."""
    numbers = [int(part) for part in version.split(".")[:2]]
    description = {"path": str(path), "version": version, "numbers": numbers, "final": True, "kind": "CPython"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{json.dumps(description | {'free_threaded': False} | other)}'\n")
    path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")
def test_interpreters_finds_one_of_each_supported_version(
    tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, pyenv, environment = tmp_path / "system", tmp_path / "pyenv", tmp_path / "environment"
    fake_python(system / "python3", "3.12.4")
    fake_python(system / "python3.9", "3.9.1")
    fake_python(system / "python3.12-config", "3.12.9")
    fake_python(pyenv / "versions" / "3.12.4" / "bin" / "python", "3.12.4")
    fake_python(pyenv / "versions" / "3.11.2" / "bin" / "python", "3.11.2")
    fake_python(pyenv / "versions" / "3.14.0t" / "bin" / "python", "3.14.0", free_threaded=True)
    fake_python(pyenv / "versions" / "3.15.0a1" / "bin" / "python", "3.15.0a1", final=False)
    fake_python(pyenv / "versions" / "pypy" / "bin" / "python", "3.11.9", kind="PyPy")
    broken = pyenv / "versions" / "broken" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    fake_python(environment / "bin" / "python3.13", "3.13.0")
    (environment / "pyvenv.cfg").touch()
    monkeypatch.setenv("PATH", f"{environment / 'bin'}:{system}")
    monkeypatch.setenv("PYENV_ROOT", str(pyenv))
    pythons = {one.version: one.path for one in tool("test_pythons").interpreters()}
    assert pythons["3.12.4"] == str(system / "python3")
    assert pythons["3.11.2"] == str(pyenv / "versions" / "3.11.2" / "bin" / "python")
    assert not {"3.9.1", "3.12.9", "3.13.0", "3.14.0", "3.15.0a1", "3.11.9"} & set(pythons)


def test_setup_without_ensurepip_names_the_package(
    tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian ships Python without ensurepip."""
    setup_venv = tool("setup_venv")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name))
    monkeypatch.setattr(sys, "argv", ["setup_venv.py", "never-made"])
    assert setup_venv.main() == 1
    stderr = capsys.readouterr().err
    assert f"apt-get install python{sys.version_info.major}.{sys.version_info.minor}-venv" in stderr


def test_setup_with_older_python_names_the_required_version(
    tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_venv = tool("setup_venv")
    monkeypatch.setattr(setup_venv, "OLDEST", (3, 99))
    monkeypatch.setattr(sys, "argv", ["setup_venv.py", "never-made"])
    assert setup_venv.main() == 1
    assert "needs Python 3.99 or newer" in capsys.readouterr().err


def test_missing_browser_fails_in_ci_and_skips_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        find_chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        find_chromium()
