"""Writes the files of a network: one for each number of bits and precision, with the weights once.

`python -m training.wrap` writes those of the bundled networks again, from their own weights: for another version of
the graph around a network. Equal networks give equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from reel_modal._upscaling.bundled import BUNDLED, RUNTIME_GRAPHS, runtime_file
from reel_modal._upscaling.manifest import ModelManifest
from reel_modal._upscaling.onnx_files import parse_model
from reel_modal._upscaling.wrapping import unwrap, wrap

SMALLEST_SHARED_BYTES = 128


def write_files(core: ModelProto, manifest: ModelManifest, folder: Path) -> list[Path]:
    """Write the files of a network, the one with the weights first; return their paths.

    Args:
        core: The network, with floats from 0 to 1 as input and output.
        manifest: Its properties.
        folder: Where the files go.
    """
    metadata = manifest.to_metadata()
    paths = [folder / runtime_file(manifest.name, bits, precision) for bits, precision in RUNTIME_GRAPHS]
    bits, precision = RUNTIME_GRAPHS[0]
    whole = wrap(core, bits=bits, precision=precision, metadata=metadata).SerializeToString(deterministic=True)
    paths[0].write_bytes(whole)
    for path, (bits, precision) in zip(paths[1:], RUNTIME_GRAPHS[1:], strict=True):
        wrapped = wrap(core, bits=bits, precision=precision, metadata=metadata)
        share_weights(wrapped.graph, core.graph, paths[0].name, whole)
        path.write_bytes(wrapped.SerializeToString(deterministic=True))
    for path in paths:
        print(path, path.stat().st_size, "bytes")
    return paths


def share_weights(wrapped: GraphProto, core: GraphProto, name: str, whole: bytes) -> None:
    """Replace the larger weights of a graph by those in another file; a node brings them to half precision.

    Args:
        wrapped: The graph that is changed.
        core: The network, with the weights that the other file has.
        name: Name of the other file, in the same folder.
        whole: Bytes of the other file.
    """
    stored = {each.name: each for each in core.initializer}
    casts: list[NodeProto] = []
    for tensor in wrapped.initializer:
        single = stored.get(tensor.name)
        if single is None or len(single.raw_data) < SMALLEST_SHARED_BYTES:
            continue
        if tensor.data_type != single.data_type:
            name_of_cast = f"{single.name}.half"
            casts.append(
                helper.make_node("Cast", [f"{single.name}.single"], [single.name], name_of_cast, to=tensor.data_type)
            )
            tensor.name = f"{single.name}.single"
        tensor.data_type = single.data_type
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": name, "offset": whole.index(single.raw_data), "length": len(single.raw_data)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    nodes = [*casts, *wrapped.node]
    del wrapped.node[:]
    wrapped.node.extend(nodes)


def main() -> None:
    """Write the files of each bundled network."""
    for network in BUNDLED.values():
        write_files(unwrap(parse_model(network.path.read_bytes())), network.manifest, network.path.parent)


if __name__ == "__main__":
    main()
