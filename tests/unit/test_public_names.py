"""What `import reel_modal` costs, and the names that it promises."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import reel_modal

HEAVY = ("modal", "cv2", "av", "numpy", "rich", "stamina", "imageio_ffmpeg")
LIMIT_SECONDS = 0.1


def fresh(code: str) -> object:
    """Run `code` in a new interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def loaded_after(code: str) -> object:
    return fresh(f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))")


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert loaded_after("import reel_modal") == []


def test_settings_and_errors_load_no_heavy_library() -> None:
    assert loaded_after("from reel_modal import RemoteError, RequestError, Settings") == []


def test_test_helpers_load_neither_modal_nor_opencv() -> None:
    loaded = loaded_after("import reel_modal.testing")
    assert isinstance(loaded, list)
    assert not {"modal", "cv2"} & set(loaded)


def test_importing_the_package_takes_less_than_a_tenth_of_a_second() -> None:
    code = "import time; start = time.process_time(); import reel_modal; print(time.process_time() - start)"
    # The best of five: a busy machine makes an import slower, never faster.
    seconds = [fresh(code) for _ in range(5)]
    assert min(value for value in seconds if isinstance(value, float)) < LIMIT_SECONDS, seconds


@pytest.mark.parametrize("name", reel_modal.__all__)
def test_a_public_name_loads_in_a_fresh_interpreter(name: str) -> None:
    code = f"import json; from reel_modal import {name} as value; print(json.dumps(value is not None))"
    assert fresh(code) is True


def test_a_star_import_brings_every_public_name() -> None:
    got = fresh("from reel_modal import *\nimport json\nprint(json.dumps(list(globals())))")
    assert isinstance(got, list)
    assert set(reel_modal.__all__) <= set(got)


def test_dir_lists_the_public_names_before_they_are_loaded() -> None:
    listed = fresh("import json, reel_modal; print(json.dumps(dir(reel_modal)))")
    assert listed == sorted(reel_modal.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"'reel_modal' has no attribute 'rendr_overlay'"):
        _ = reel_modal.rendr_overlay
