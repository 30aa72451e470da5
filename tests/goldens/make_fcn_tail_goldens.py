"""Makes data/fcn_tail.npz: the tails of the paper's FCNs, from VGG's maps to scores, by OpenCV's reader
of Caffe models: `python make_fcn_tail_goldens.py`, with opencv-python-headless 4.14.0 from pip.

The layers are those of the authors' prototxt files (github.com/shelhamer/fcn.berkeleyvision.org,
voc-fcn8s and its sisters), with the offsets that Caffe computes for their Crop layers. Caffemodels are
written field by field as protocol buffers.
"""

from pathlib import Path

import cv2
import fcn_tail
import numpy as np
from fcn_tail import CLASSES, NETS, SIZE

WRITTEN = {"Convolution", "Deconvolution", "Scale"}


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def caffemodel(layers: list[tuple[str, str, list[np.ndarray]]]) -> bytes:
    """A NetParameter of layers with a name, a type and blobs."""
    model = field(1, b"net")
    for name, kind, arrays in layers:
        blobs = b""
        for array in arrays:
            shape = b"".join(varint(side) for side in array.shape)
            blobs += field(7, field(7, field(1, shape)) + field(5, array.astype("<f4").tobytes()))
        model += field(100, field(1, name.encode()) + field(2, kind.encode()) + blobs)
    return model


class Prototxt:
    """The text of a net, and the layers of it that have weights."""

    def __init__(self, net: str, shapes: dict[str, tuple[int, ...]]):
        self.state, self.layers = fcn_tail.state_dict(net), []
        self.text = ""
        for name, shape in shapes.items():
            sides = " ".join(f"dim: {side}" for side in shape)
            self.text += f'input: "{name}" input_shape {{ {sides} }}\n'

    def add(self, kind: str, name: str, bottoms: list[str], parameters: str = "") -> str:
        lines = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}"{lines} top: "{name}" {parameters} }}\n'
        if kind in WRITTEN:
            keys = [key for key in (f"{name}.weight", f"{name}.bias") if key in self.state]
            self.layers.append((name, kind, [self.state[key] for key in keys]))
        return name

    def score(self, name: str, bottom: str) -> str:
        own = f"convolution_param {{ num_output: {CLASSES} kernel_size: 1 }}"
        return self.add("Convolution", name, [bottom], own)

    def enlarged(self, name: str, bottom: str, stride: int) -> str:
        own = f"num_output: {CLASSES} kernel_size: {2 * stride} stride: {stride} bias_term: false"
        return self.add("Deconvolution", name, [bottom], f"convolution_param {{ {own} }}")

    def skip(self, name: str, bottom: str, coarse: str, offset: int, scaled: bool) -> str:
        if scaled:
            bottom = self.add("Scale", f"scale_{bottom}", [bottom], "scale_param { axis: 1 }")
        scores = self.score(name, bottom)
        cut = self.crop(f"{name}c", scores, coarse, offset)
        return self.add("Eltwise", f"fuse_{name}", [coarse, cut], "eltwise_param { operation: SUM }")

    def crop(self, name: str, bottom: str, like: str, offset: int) -> str:
        own = f"crop_param {{ axis: 2 offset: {offset} }}"
        return self.add("Crop", name, [bottom, like], own)


def net_of(name: str, shapes: dict[str, tuple[int, ...]]) -> Prototxt:
    net, scaled = Prototxt(name, shapes), name.endswith("atonce")
    x = net.score("score_fr", "fc7")
    if name == "fcn32s":
        net.crop("score", net.enlarged("upscore", x, 32), "data", 19)
        return net
    x = net.skip("score_pool4", "pool4", net.enlarged("upscore2", x, 2), 5, scaled)
    if name == "fcn16s":
        net.crop("score", net.enlarged("upscore16", x, 16), "data", 27)
        return net
    x = net.skip("score_pool3", "pool3", net.enlarged("upscore_pool4", x, 2), 9, scaled)
    net.crop("score", net.enlarged("upscore8", x, 8), "data", 31)
    return net


def main() -> None:
    answers = {"reference": f"OpenCV {cv2.__version__}"}
    for name in NETS:
        used = {"fcn32s": ("fc7",), "fcn16s": ("fc7", "pool4")}.get(name, ("fc7", "pool4", "pool3"))
        maps = {key: fcn_tail.maps()[key].transpose(0, 3, 1, 2) for key in used}
        maps["data"] = np.zeros((1, 3, *SIZE), np.float32)
        net = net_of(name, {key: value.shape for key, value in maps.items()})
        read = cv2.dnn.readNetFromCaffe(
            np.frombuffer(net.text.encode(), np.uint8), np.frombuffer(caffemodel(net.layers), np.uint8)
        )
        for key, value in maps.items():
            read.setInput(np.ascontiguousarray(value), key)
        answers[name] = read.forward("score").transpose(0, 2, 3, 1)[:, ::3, ::3]
        print(name, answers[name].shape, answers[name].std())
    np.savez_compressed(Path(__file__).parent / "data" / "fcn_tail.npz", **answers)


if __name__ == "__main__":
    main()
