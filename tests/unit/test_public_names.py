"""The cost of `import reel_modal`, and its public names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import reel_modal

HEAVY = ("modal", "cv2", "av", "numpy", "rich", "stamina", "imageio_ffmpeg", "onnx")
LIMIT_SECONDS = 0.1


def run_fresh(code: str) -> object:
    """Run `code` in a new interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def loaded_after(code: str) -> object:
    return run_fresh(
        f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )


def test_import_of_package_loads_no_heavy_library() -> None:
    assert loaded_after("import reel_modal") == []


def test_import_of_settings_and_errors_loads_no_heavy_library() -> None:
    assert loaded_after("from reel_modal import RemoteError, RequestError, Settings") == []


def test_import_of_testing_loads_neither_modal_nor_opencv() -> None:
    loaded = loaded_after("import reel_modal.testing")
    assert isinstance(loaded, list)
    assert not {"modal", "cv2"} & set(loaded)


def test_worker_loads_neither_event_loop_nor_host_libraries() -> None:
    """Each local job starts such a process."""
    modules = ("asyncio", "importlib.metadata", "platformdirs", "stamina")
    loaded = run_fresh(
        "import json, sys\n"
        "import reel_modal.functions.worker, reel_modal.functions.runner, reel_modal.functions.render_overlay\n"
        "from reel_modal.functions.catalog import find_function\n"
        "find_function('reel_modal.functions.builtin', 'render_overlay')\n"
        f"print(json.dumps([name for name in {modules!r} if name in sys.modules]))"
    )
    assert loaded == []


def test_import_of_package_takes_less_than_100_ms() -> None:
    code = "import time; start = time.process_time(); import reel_modal; print(time.process_time() - start)"
    # The best of five, because a busy machine only makes an import slower.
    seconds = [run_fresh(code) for _ in range(5)]
    assert min(value for value in seconds if isinstance(value, float)) < LIMIT_SECONDS, seconds


def names_by_module() -> dict[str, list[str]]:
    """Return the public names of each module that the package loads on first use."""
    found: dict[str, list[str]] = {}
    for name, home in reel_modal._HOME.items():
        found.setdefault(home, []).append(name)
    return found


@pytest.mark.parametrize("module", names_by_module())
def test_public_names_of_module_load_in_a_fresh_interpreter(module: str) -> None:
    """One import loads the module, so its first name stands for all of them."""
    first, *others = names_by_module()[module]
    code = f"""
import json, sys
import reel_modal
assert "reel_modal.{module}" not in sys.modules
values = [reel_modal.{first}, *(getattr(reel_modal, name) for name in {others!r})]
print(json.dumps(None not in values))
"""
    assert run_fresh(code) is True


def test_public_names_are_complete() -> None:
    assert set(reel_modal.__all__) == {*reel_modal._HOME, "__version__"}


def test_star_import_has_every_public_name() -> None:
    got = run_fresh("from reel_modal import *\nimport json\nprint(json.dumps(list(globals())))")
    assert isinstance(got, list)
    assert set(reel_modal.__all__) <= set(got)


def test_dir_lists_public_names_before_they_are_loaded() -> None:
    listed = run_fresh("import json, reel_modal; print(json.dumps(dir(reel_modal)))")
    assert listed == sorted(reel_modal.__all__)


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'reel_modal' has no attribute 'rendr_overlay'"):
        _ = reel_modal.rendr_overlay
