"""Turns trained weights into the ONNX files that travel with the package.

`python -m training.export OUT.pt small-x2 src/reel_modal/_upscaling/models`. The kernels of the head and of
the skip are rounded to multiples of 1/2048, which half precision holds exactly: their sums stay exactly 0 and 1 on
every device.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from reel_modal._upscaling.manifest import ModelManifest
from reel_modal._upscaling.onnx_files import build_model
from reel_modal._upscaling.receptive_field import receptive_field
from reel_modal._upscaling.wrapping import OPSET
from training.network import SLOPE, LumaNet
from training.wrap import write_files

STEP = 2048
TURNS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((),), 2: ((), (2, 3)), 4: ((), (2,), (3,), (2, 3))}
LICENCE = "Apache-2.0"


def exact(kernels: torch.Tensor, total: int) -> npt.NDArray[np.float32]:
    """Round kernels (N, 1, k, k) to multiples of 1/2048 whose sum is exactly `total`: the middle takes the rest."""
    whole = torch.round(kernels.double() * STEP).numpy()
    middle = kernels.shape[-1] // 2
    whole[:, 0, middle, middle] += total * STEP - whole.sum((1, 2, 3))
    return (whole / STEP).astype(np.float32)


def core_graph(net: LumaNet, turns: Sequence[tuple[int, ...]] = ((),)) -> ModelProto:
    """Return the collapsed network, once for each turn; what they say is averaged.

    A network with mirrored kernels is the network between two mirrored pictures. The kernels are in the file once:
    they are mirrored by nodes, which a provider folds away when it loads the graph.

    Args:
        net: The network.
        turns: The axes, out of 2 (down) and 3 (across), along which the kernels are mirrored.
    """
    with torch.no_grad():
        net.head.weight -= net.head.weight.mean((2, 3), keepdim=True)
        net.head.weight.copy_(torch.from_numpy(exact(net.head.weight, 0)))
        layers, skip = net.collapse()
        order = torch.arange(net.scale**2).view(1, 1, net.scale, net.scale)
        pixels = {turn: order.flip(turn).flatten() for turn in turns}
        skip = torch.stack([skip.flip(turn)[pixels[turn]] for turn in turns]).mean(0)
    layers[-1] = (layers[-1][0] / len(turns), layers[-1][1] / len(turns))
    weights: dict[str, npt.NDArray[np.generic]] = {"skip": exact(skip, 1)}
    for number, (kernel, bias) in enumerate(layers):
        # The head is exact already; taking its mean off again in `collapse` would move it by a rounding error.
        weights[f"kernel{number}"] = (net.head.weight if number == 0 else kernel).detach().numpy().copy()
        weights[f"bias{number}"] = bias.detach().numpy().copy()
    nodes = [
        helper.make_node("Conv", ("luma", "skip"), ("base",), "skip", kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
    ]
    said = ["base"]
    for turn in turns:
        branch = "".join(f".{axis}" for axis in turn)
        if turn:
            nodes += mirrored(len(layers), branch)
            weights[f"first{branch}"] = np.full(len(turn), -1, np.int64)
            weights[f"last{branch}"] = np.full(len(turn), -(2**31), np.int64)
            weights[f"axes{branch}"] = np.array(turn, np.int64)
            weights[f"pixels{branch}"] = pixels[turn].numpy()
        nodes += convolutions(len(layers), branch)
        said.append(nodes[-1].output[0])
    nodes.append(helper.make_node("Sum", said, ("both",), "add"))
    nodes.append(
        helper.make_node("DepthToSpace", ("both",), ("large",), "shuffle", blocksize=net.scale, mode="CRD"),
    )
    port = helper.make_tensor_value_info
    graph = GraphProto(
        name="upscaler",
        node=nodes,
        initializer=[numpy_helper.from_array(value, name) for name, value in weights.items()],
        input=[port("luma", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        output=[port("large", TensorProto.FLOAT, ["n", 1, "scaled_h", "scaled_w"])],
    )
    return build_model(graph, opset=OPSET, metadata={})


def convolutions(count: int, branch: str) -> list[NodeProto]:
    """Return the chain of convolutions, from the picture to what is added to the skip."""
    same = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    nodes = []
    at = "luma"
    for number in range(count):
        last = number == count - 1
        inputs = (at, f"kernel{number}{branch}", f"bias{number}{branch if last else ''}")
        at = f"conv{number}{branch}"
        nodes.append(helper.make_node("Conv", inputs, (at,), at, **same))
        if not last:
            bent = f"features{number}{branch}"
            nodes.append(helper.make_node("LeakyRelu", (at,), (bent,), f"bend{number}{branch}", alpha=SLOPE))
            at = bent
    return nodes


def mirrored(count: int, branch: str) -> list[NodeProto]:
    """Return what mirrors the kernels, and puts the pixels that the last one makes in their new order."""
    backwards = (f"first{branch}", f"last{branch}", f"axes{branch}", f"first{branch}")  # steps of -1, as the first
    last = count - 1
    turned = [f"kernel{number}{branch}" for number in range(last)] + [f"turned{branch}"]
    nodes = [
        helper.make_node("Slice", (f"kernel{number}", *backwards), (name,), f"mirror{number}{branch}")
        for number, name in enumerate(turned)
    ]
    for what, source in (("kernel", turned[-1]), ("bias", f"bias{last}")):
        inputs, name = (source, f"pixels{branch}"), f"{what}{last}{branch}"
        nodes.append(helper.make_node("Gather", inputs, (name,), f"order_{what}{branch}", axis=0))
    return nodes


def main() -> None:
    """Write the files of one network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=1, choices=TURNS, help="mirrored ones, to be averaged")
    arguments = parser.parse_args()
    stored = torch.load(arguments.weights)
    net = LumaNet(stored["channels"], stored["blocks"], stored["scale"])
    net.load_state_dict(stored["weights"])
    core = core_graph(net, TURNS[arguments.copies])
    reach = receptive_field(core.graph)
    manifest = ModelManifest("luma", int(reach.scale), reach.halo, arguments.name, LICENCE)
    write_files(core, manifest, arguments.folder)


if __name__ == "__main__":
    main()
