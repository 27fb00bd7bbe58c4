"""Parts of the deploy command that need no control plane: secrets, console, tables, the image's interpreter."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from tests.ffmpegs import executable
from tests.run_function import SPECS

from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal.deploy.command import main
from reel_modal.deploy.console import Console, Redactor
from reel_modal.deploy.environments import image_interpreter
from reel_modal.deploy.exit_codes import FAILED, NOT_CONFIGURED, deployment_error, exit_status, explained
from reel_modal.deploy.plan import make_plan
from reel_modal.deploy.preflight import Interpreter, not_sent, run_preflight
from reel_modal.errors import AuthError, ConfigError, DeploymentError, UnavailableError
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.specs import ImageSpec


def test_every_function_declares_a_trial() -> None:
    keys = {"job_id": "trial", "user_id": "trial", "input_key": "in.mp4", "output_key": "out.mp4"}
    for function in all_functions(env={}).values():
        assert function.trial is not None, function.name
        assert isinstance(function.trial(keys), function.request)


def test_preflight_passes_settings_but_no_other_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import os, sys\nsys.exit('passed: ' + ' '.join(name for name in os.environ if 'PREFLIGHT' in name))"
    python = Path(executable(tmp_path / "python", body))
    for name in ("REEL_MODAL_PREFLIGHT", "PREFLIGHT_TOKEN"):
        monkeypatch.setenv(name, "set")
    with (
        Console(tmp_path / "deploy.log", Redactor({})) as console,
        pytest.raises(DeploymentError, match=r"app fails with only the packages of the image:\n.*") as caught,
    ):
        run_preflight(
            Interpreter(python), [all_functions(env={})["render_overlay"]], {"PREFLIGHT_GIVEN": "set"}, console
        )
    (line,) = (line for line in str(caught.value).splitlines() if "passed: " in line)
    assert set(line.split("passed: ")[1].split()) == {"REEL_MODAL_PREFLIGHT", "PREFLIGHT_GIVEN"}


def test_redactor_hides_secrets_everywhere() -> None:
    redact = Redactor(
        {
            "AWS_SECRET_ACCESS_KEY": "abcdefgh1234",
            "db_password": "first line\nsecond line\n",
            "API_KEY": "short",
            "REEL_MODAL_SECRETS": "reel-modal-storage",
            "PATH": "/usr/bin:/usr/local/bin",
        }
    )
    assert redact("x=abcdefgh1234, first line / second line") == "x=[hidden], [hidden] / [hidden]"
    assert (
        redact("s3://key:word@host/a, as-0123456789abcdef ak-0123456789") == "s3://[hidden]@host/a, [hidden] [hidden]"
    )
    assert (
        redact("reel-modal-storage short /usr/bin:/usr/local/bin")
        == "reel-modal-storage short /usr/bin:/usr/local/bin"
    )
    assert redact("ask-me basket-case as-is as-configured") == "ask-me basket-case as-is as-configured"
    redact.add_secret("a later secret")
    redact.add_secret(None)
    assert redact("a later secret") == "[hidden]"


def test_console_ascii_terminal_gets_replacements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(screen, encoding="ascii", newline="\n"))
    with Console(tmp_path / "logs" / "deploy.log", Redactor({})) as console:
        console.info("✓ Köln └── 🔨 done… \udcff")
    assert screen.getvalue() == b"+ K?ln `-- * done... ?\n"
    log = tmp_path / "logs" / "deploy.log"
    assert log.read_text(encoding="utf-8") == "✓ Köln └── 🔨 done… \\udcff\n"
    assert log.stat().st_mode & 0o077 == 0


def test_console_closed_stdout_still_writes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with Console(tmp_path / "deploy.log", Redactor({})) as console:
        console.out("seen by the log alone")
    assert (tmp_path / "deploy.log").read_text() == "seen by the log alone\n"


def test_console_unwritable_log_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"deploy\.log' cannot be written"):
        Console(tmp_path / "file" / "deploy.log", Redactor({}))


@pytest.mark.parametrize(
    ("error", "status", "cure"),
    [
        (AuthError("no token", function="modal"), NOT_CONFIGURED, "MODAL_TOKEN_ID"),
        (ConfigError("bad"), NOT_CONFIGURED, "correct the variable"),
        (UnavailableError("away", function="modal"), FAILED, "try again"),
        (deployment_error("secret", "gone"), NOT_CONFIGURED, "modal secret create"),
        (deployment_error("something new", "what"), FAILED, "--verify-only"),
    ],
)
def test_explained_failure_has_status_and_cure(error: Exception, status: int, cure: str) -> None:
    failure = explained(error)  # type: ignore[arg-type]
    assert (exit_status(failure), cure in failure.cure) == (status, True)


def test_plan_without_deployed_state_says_unknown() -> None:
    plan = make_plan("reel-modal", "production", SPECS.values(), PUBLISHED_RATES, None)
    assert "reel-modal (production) could not be checked" in plan.to_text()
    assert "render_overlay: the deployed version is unknown" in plan.to_text()
    assert [each.usd_per_hour for each in plan.functions] == pytest.approx([0.8110, 0.2206, 1.3542, 0.2206], abs=1e-4)


def test_not_sent_ignores_files_not_in_the_image(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "parts").mkdir(parents=True)
    for name in ("a.py", "parts/b.onnx", "parts/b.pyc", "parts/notes.txt", "py.typed"):
        (package / name).write_text("")
    shutil.copytree(package, tmp_path / "copy", ignore=not_sent)
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert copied == {"a.py", "parts/b.onnx"}


def test_deploy_unexpected_error_is_shown_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("the value was planted-value")

    monkeypatch.setenv("STORE_SECRET", "planted-value")
    monkeypatch.setattr("reel_modal.deploy.command.all_functions", broken)
    log = tmp_path / "deploy.log"
    assert main(["--environment", "test", "--dry-run", "--json", "--log-file", str(log)]) == FAILED
    shown = capsys.readouterr()
    failure = json.loads(shown.out)["error"]
    assert (failure["kind"], "RuntimeError: the value was [hidden]" in failure["message"]) == ("unexpected", True)
    assert not any("planted-value" in text for text in (shown.out, shown.err, log.read_text()))


def wheel(folder: Path, name: str, version: str) -> None:
    """Write a package with one empty module, so that pip needs no network."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def test_image_interpreter_installs_packages_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path, "modal", metadata.version("modal"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    cache = tmp_path / "cache"
    image = ImageSpec(python_version=f"{sys.version_info.major}.{sys.version_info.minor}", pip=("in-the-image==1.2",))
    for requirement in image.packages:
        wheel(tmp_path, *requirement.split("=="))
    with Console(tmp_path / "deploy.log", Redactor({})) as console:
        interpreter = image_interpreter(image, console, cache=cache)
        assert image_interpreter(image, console, cache=cache) == interpreter
        with pytest.raises(DeploymentError, match=r"could not install the image's packages:(.|\n)*in-the-image==1.3"):
            image_interpreter(replace(image, pip=("in-the-image==1.3",)), console, cache=cache)
    assert capsys.readouterr().err.count("this is done once") == 2
    assert [path.name for path in cache.iterdir()] == [interpreter.python.parent.parent.name]

    def imports(module: str, *paths: Path | None) -> bool:
        command = [interpreter.python, "-s", "-P", "-c", f"import {module}"]
        known = {"PYTHONPATH": os.pathsep.join(str(path) for path in paths)}
        return subprocess.run(command, env=known, capture_output=True, check=False).returncode == 0

    assert imports("in_the_image")
    assert imports("modal", interpreter.modal_path)
    assert not imports("modal")
    assert not imports("rich", interpreter.modal_path)
