"""What `make_fcn_tail_goldens.py` and the test of FCN's tail draw alike: small maps of VGG's sizes, and
the weights of what scores, enlarges and cuts them. It needs NumPy alone."""

import draw
import numpy as np

SIZE = (97, 120)
CHANNELS = {"pool3": 5, "pool4": 6, "fc7": 8}
CLASSES = 3
NETS = ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce")


def maps() -> dict[str, np.ndarray]:
    """Maps [1, h, w, C] of a picture of `SIZE`, by Caffe's names."""
    sizes, size = {}, tuple(side + 198 for side in SIZE)
    for stage in range(1, 6):
        size = sizes[f"pool{stage}"] = tuple(-(-side // 2) for side in size)
    sizes["fc7"] = tuple(side - 6 for side in size)
    return {name: draw.uniform(name, (1, *sizes[name], c), -1, 1) for name, c in CHANNELS.items()}


def bilinear(side: int) -> np.ndarray:
    """The kernels of the authors' `surgery.py`, zero between classes: f32[K, K, side, side]."""
    factor = (side + 1) // 2
    center = factor - 1 if side % 2 else factor - 0.5
    y, x = np.ogrid[:side, :side]
    tent = (1 - abs(y - center) / factor) * (1 - abs(x - center) / factor)
    return (np.eye(CLASSES)[:, :, None, None] * tent).astype(np.float32)


def state_dict(net: str) -> dict[str, np.ndarray]:
    """The weights of the layers behind VGG, by Caffe's names."""
    last = {"fcn32s": 32, "fcn16s": 16}.get(net, 8)
    scored = {"score_fr": "fc7"}
    scored |= {"score_pool4": "pool4"} if last < 32 else {}
    scored |= {"score_pool3": "pool3"} if last < 16 else {}
    state = {}
    for name, source in scored.items():
        state[f"{name}.weight"] = draw.uniform(name, (CLASSES, CHANNELS[source], 1, 1), -1, 1)
        state[f"{name}.bias"] = draw.uniform(f"{name} bias", (CLASSES,), -1, 1)
    factors = {32: {"upscore": 32}, 16: {"upscore2": 2, "upscore16": 16}}.get(
        last, {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8}
    )
    state |= {f"{name}.weight": bilinear(2 * factor) for name, factor in factors.items()}
    if net == "fcn8s_atonce":
        for name, value in (("pool4", 0.01), ("pool3", 0.0001)):
            state[f"scale_{name}.weight"] = np.full(CHANNELS[name], value, np.float32)
    return state
