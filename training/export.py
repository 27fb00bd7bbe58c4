"""Turns trained weights into the ONNX file that travels with the package.

`python -m training.export OUT.pt small-x2 src/reel_modal/upscaling/models`. The kernels of the head and of
the skip are rounded to multiples of 1/2048, which half precision holds exactly: their sums stay exactly 0 and 1 on
every device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reel_modal.upscaling.graph import OPSET
from reel_modal.upscaling.model import ModelManifest, UpscaleModel
from reel_modal.upscaling.onnx_graph import Graph, Node, Port, Tensor
from reel_modal.upscaling.receptive_field import reach_of
from training.network import SLOPE, LumaNet

STEP = 2048
LICENCE = "Apache-2.0"


def exact(kernels: torch.Tensor, total: int) -> npt.NDArray[np.float32]:
    """Round kernels (N, 1, k, k) to multiples of 1/2048 whose sum is exactly `total`: the middle takes the rest."""
    whole = torch.round(kernels.double() * STEP).numpy()
    middle = kernels.shape[-1] // 2
    whole[:, 0, middle, middle] += total * STEP - whole.sum((1, 2, 3))
    return (whole / STEP).astype(np.float32)


def core_graph(net: LumaNet) -> Graph:
    """Return the collapsed network."""
    with torch.no_grad():
        net.head.weight -= net.head.weight.mean((2, 3), keepdim=True)
        net.head.weight.copy_(torch.from_numpy(exact(net.head.weight, 0)))
        layers, skip = net.collapse()
    weights: dict[str, Tensor] = {"skip": exact(skip, 1)}
    same = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    nodes = [Node("Conv", ("luma", "skip"), ("base",), {"kernel_shape": (5, 5), "pads": (2, 2, 2, 2)}, "skip")]
    at = "luma"
    for number, (kernel, bias) in enumerate(layers):
        # The head is exact already; taking its mean off again in `collapse` would move it by a rounding error.
        weights[f"kernel{number}"] = (net.head.weight if number == 0 else kernel).detach().numpy().copy()
        weights[f"bias{number}"] = bias.detach().numpy().copy()
        nodes.append(
            Node("Conv", (at, f"kernel{number}", f"bias{number}"), (f"conv{number}",), same, f"conv{number}")
        )
        at = f"conv{number}"
        if number < len(layers) - 1:
            nodes.append(Node("LeakyRelu", (at,), (f"features{number}",), {"alpha": SLOPE}, f"bend{number}"))
            at = f"features{number}"
    nodes.append(Node("Add", ("base", at), ("both",), name="add"))
    nodes.append(Node("DepthToSpace", ("both",), ("large",), {"blocksize": net.scale, "mode": "CRD"}, name="shuffle"))
    ports = Port("luma", "float32", ("n", 1, "h", "w")), Port("large", "float32", ("n", 1, "scaled_h", "scaled_w"))
    return Graph(tuple(nodes), weights, ports[:1], ports[1:], OPSET)


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    stored = torch.load(arguments.weights)
    net = LumaNet(stored["channels"], stored["blocks"], stored["scale"])
    net.load_state_dict(stored["weights"])
    core = core_graph(net)
    reach = reach_of(core)
    manifest = ModelManifest("luma", int(reach.scale), reach.halo, arguments.name, LICENCE)
    model = UpscaleModel(manifest, core, sha256="")
    path = arguments.folder / f"{arguments.name}.onnx"
    path.write_bytes(model.deployed(bits=8, precision="fp32"))
    print(path, path.stat().st_size, "bytes, halo", manifest.halo)


if __name__ == "__main__":
    main()
