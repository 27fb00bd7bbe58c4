"""The contract of a deployment: its content, its hash and its differences."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.run_function import DEPLOYED, SPECS

import reel_modal
from reel_modal.errors import ConfigError
from reel_modal.functions.contract import Contract, Difference, differences, local_contract, source_hash
from reel_modal.functions.specs import chosen_functions

PACKAGE = Path(reel_modal.__file__).parent


def test_contract_same_package_and_environment_is_equal() -> None:
    one, other = local_contract({}), local_contract({})
    assert one == other
    assert one.name == f"contract-{reel_modal.__version__.replace('.', '-')}-{one.hash}"
    assert set(one.functions) == set(DEPLOYED)
    assert Contract.from_json(one.to_json()) == one


def test_contract_differences_name_setting_and_function() -> None:
    local = local_contract({})
    deployed = local_contract(
        {"REEL_MODAL_RENDER_OVERLAY_GPU": "L4,T4", "REEL_MODAL_SECRETS": "reel-modal-storage, more"}
    )
    assert differences("render_overlay", deployed, local) == [
        Difference("gpu", "L4", "nothing"),
        Difference("secrets", "more", "nothing"),
    ]
    assert differences("apply_upscale", deployed, local) == [Difference("secrets", "more", "nothing")]
    assert deployed.hash != local.hash
    older = Contract("0.0.9", local.source, local.functions)
    assert [str(each) for each in differences("render_overlay", older, local)] == [
        f"version: 0.0.9 is deployed, {reel_modal.__version__} is local"
    ]
    assert differences("unknown", deployed, local) == []


def test_contract_includes_parameters_of_each_function() -> None:
    functions = local_contract({}).functions
    assert "OverlayRequest(job_id: str, " in functions["render_overlay"]["signature"]
    assert " -> RenderResult(status: RenderStatus, job_id: str, " in functions["render_overlay"]["signature"]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"version": "1"}', '{"version": 1, "source": 2, "functions": [3]}']
)
def test_contract_from_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - also errors of json
        Contract.from_json(text)


def test_source_hash_covers_sent_files_ignores_line_ends(tmp_path: Path) -> None:
    copy = tmp_path / "reel_modal"
    shutil.copytree(PACKAGE, copy)
    assert source_hash(copy) == source_hash(PACKAGE)
    part = copy / "functions" / "specs.py"
    part.write_bytes(part.read_bytes().replace(b"\n", b"\r\n"))
    (copy / "notes.txt").write_text("not sent")
    assert source_hash(copy) == source_hash(PACKAGE)
    part.write_bytes(part.read_bytes() + b"#")
    assert source_hash(copy) != source_hash(PACKAGE)
    shutil.copytree(PACKAGE, copy, dirs_exist_ok=True)
    network = next(copy.rglob("*.onnx"))
    network.write_bytes(network.read_bytes() + b"\0")
    assert source_hash(copy) != source_hash(PACKAGE)
    shutil.copytree(PACKAGE, copy, dirs_exist_ok=True)
    (copy / "_rendering" / "overlay.py").rename(copy / "_rendering" / "overlaid.py")
    assert source_hash(copy) != source_hash(PACKAGE)


def test_chosen_functions_may_be_a_subset() -> None:
    assert chosen_functions(SPECS, {}) == tuple(SPECS)
    assert chosen_functions(SPECS, {"REEL_MODAL_FUNCTIONS": "apply_upscale, render_overlay"}) == (
        "apply_upscale",
        "render_overlay",
    )
    with pytest.raises(ConfigError, match="REEL_MODAL_FUNCTIONS: unknown: dance; known are render_overlay"):
        chosen_functions(SPECS, {"REEL_MODAL_FUNCTIONS": "dance"})


def test_contract_name_among_finds_only_contract_names() -> None:
    assert Contract.name_among(["render_overlay", "contract-0-1-0-abc"]) == "contract-0-1-0-abc"
    assert Contract.name_among(["render_overlay"]) is None
