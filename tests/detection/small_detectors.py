"""Small detectors of every kind, variables of which they find something, and pictures on canvases."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.detection import Truths, create_detector

CLASSES = 3
QUICKLY = {"xla_backend_optimization_level": 0}  # compiled in half the time
_TWO_STAGES = {"hidden": 32, "proposals": 50, "train_proposals": 50}
SMALL = {
    "faster_rcnn": _TWO_STAGES,
    "mask_rcnn": _TWO_STAGES,
    "retinanet": {},
    "retinanet_v2": {"version": 2},
    "fcos": {},
}


def make(name, **settings):
    """A detector of three classes on a short ResNet, whose smallest anchors have sides of 16 pixels."""
    own = {"width": 32, "backbone": "resnet18", "backbone_settings": {"depths": (1, 1, 1, 1)}}
    own |= {"norm": "frozen", **SMALL[name]}
    if name != "fcos":
        own["anchor_size"] = 16
    kind = name.removesuffix("_v2")
    return create_detector(kind, num_classes=CLASSES, min_size=96, max_size=160, **{**own, **settings})


def draw(model, seed=0):
    """Variables whose scores spread over all of 0 to 1, drawn without compiling `init`.

    Biases are large, so that what a layer leaves beyond a picture is far from 0.
    """
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        names, last = {key.key for key in path}, path[-1].key
        if last in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        if last == "mean":
            return np.zeros(leaf.shape, np.float32)
        if last == "bias":
            return rng.normal(scale=0.3, size=leaf.shape).astype(np.float32)
        gain = 0.3 if {"deltas", "bbox_pred"} & names else 1.4
        scale = gain / np.sqrt(np.prod(leaf.shape[:-1]))
        return rng.normal(scale=scale, size=leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.float32))
    return jax.tree_util.tree_map_with_path(fill, shapes)


def picture(size, seed=0):
    """Blocks of color, f32[H, W, 3]."""
    rng = np.random.default_rng(seed)
    blocks = rng.normal(size=(-(-size[0] // 8), -(-size[1] // 8), 3)).astype(np.float32)
    return blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]


def on_canvas(pictures, canvas):
    """Pictures in the upper left of a canvas, and their sizes."""
    images = np.zeros((len(pictures), *canvas, 3), np.float32)
    for image, own in zip(images, pictures, strict=True):
        image[: own.shape[0], : own.shape[1]] = own
    return images, np.array([own.shape[:2] for own in pictures], np.int32)


def truths(model, sizes, canvas, most, masks=False, seed=0):
    """Up to three objects of each picture, whatever the canvas, and rubbish in the rows beyond."""
    rng, rubbish = np.random.default_rng(seed), np.random.default_rng(most)
    boxes = rubbish.uniform(0, 200, (len(sizes), most, 4)).astype(np.float32)
    first = max(model.first_label, 0)
    labels = rubbish.integers(first, CLASSES, (len(sizes), most)).astype(np.int32)
    valid = np.zeros((len(sizes), most), bool)
    shapes = np.zeros((len(sizes), most, *canvas), bool)
    for n, (height, width) in enumerate(sizes):
        for m in range(3 - n % 2):
            x, y = rng.uniform(0, width - 20), rng.uniform(0, height - 20)
            sides = rng.uniform(12, 60, 2)
            boxes[n, m] = x, y, min(x + sides[0], width), min(y + sides[1], height)
            labels[n, m], valid[n, m] = rng.integers(CLASSES), True
            left, top, right, bottom = boxes[n, m].astype(int)
            shapes[n, m, top:bottom, left : (left + right) // 2 + 1] = True
    return Truths(boxes, labels, valid, shapes if masks else None)
