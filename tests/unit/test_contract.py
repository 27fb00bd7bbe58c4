"""The contract of a deployment: what is in it, what it does not depend on, and how it says what differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import reel_modal
from reel_modal.errors import ConfigError
from reel_modal.functions.contract import Contract, Difference, differences, local_contract, source_hash
from reel_modal.functions.requests import REQUESTS
from reel_modal.functions.specs import SPECS, chosen_functions

PACKAGE = Path(reel_modal.__file__).parent


def test_the_same_package_and_environment_have_the_same_contract() -> None:
    one, other = local_contract({}), local_contract({})
    assert one == other
    assert one.name == f"contract-{reel_modal.__version__.replace('.', '-')}-{one.hash}"
    assert set(one.functions) == set(SPECS)
    assert Contract.from_json(one.to_json()) == one


def test_each_thing_that_differs_is_named_for_the_functions_that_it_concerns() -> None:
    here = local_contract({})
    there = local_contract(
        {"REEL_MODAL_RENDER_OVERLAY_GPU": "L4,T4", "REEL_MODAL_SECRETS": "reel-modal-storage, more"}
    )
    assert differences("render_overlay", there, here) == [
        Difference("gpu", "L4", "nothing"),
        Difference("secrets", "more", "nothing"),
    ]
    assert differences("apply_upscale", there, here) == [Difference("secrets", "more", "nothing")]
    assert there.hash != here.hash
    older = Contract("0.0.9", here.source, here.functions)
    assert [str(each) for each in differences("render_overlay", older, here)] == [
        f"version: 0.0.9 is deployed, {reel_modal.__version__} is here"
    ]
    assert differences("unknown", there, here) == []


def test_the_parameters_of_each_function_are_in_its_contract() -> None:
    functions = local_contract({}).functions
    assert {name for name, row in functions.items() if row["signature"] != "no request yet"} == set(REQUESTS)
    assert "OverlayRequest(job_id: str, " in functions["render_overlay"]["signature"]
    assert " -> RenderResult(status: RenderStatus, job_id: str, " in functions["render_overlay"]["signature"]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"version": "1"}', '{"version": 1, "source": 2, "functions": [3]}']
)
def test_what_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own as well
        Contract.from_json(text)


def test_the_source_is_every_file_that_is_sent_whatever_its_line_ends(tmp_path: Path) -> None:
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
    (copy / "rendering" / "overlay.py").rename(copy / "rendering" / "overlaid.py")
    assert source_hash(copy) != source_hash(PACKAGE)


def test_a_deployment_may_have_some_of_the_functions() -> None:
    assert chosen_functions({}) == tuple(SPECS)
    assert chosen_functions({"REEL_MODAL_FUNCTIONS": "apply_upscale, render_overlay"}) == (
        "apply_upscale",
        "render_overlay",
    )
    with pytest.raises(ConfigError, match="REEL_MODAL_FUNCTIONS: there is no dance; there are render_overlay"):
        chosen_functions({"REEL_MODAL_FUNCTIONS": "dance"})


def test_only_the_name_of_a_contract_is_taken_for_one() -> None:
    assert Contract.name_among(["render_overlay", "contract-0-1-0-abc"]) == "contract-0-1-0-abc"
    assert Contract.name_among(["render_overlay"]) is None
