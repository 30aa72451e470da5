"""The contenders of `detection.py`: a detector, or one operator of detectors, ready to take steps.

Each runs in a process of its own (`python detectors.py ours|torch WORK WEIGHTS`), takes a turn for every
line that it reads and answers with a line of JSON. torch draws the weights and leaves them in the file
WEIGHTS, ours converts them, so that both see the same boxes.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from contenders import peak_memory

HEIGHT, WIDTH = 800, 1333
OBJECTS, BATCH = 8, 2  # of a picture, and pictures of a train step
STRIDES, CHANNELS, REGIONS = (4, 8, 16, 32), 256, 1000
RATE = 1e-4
WORK = {  # and how many steps a turn has
    "detect fasterrcnn_resnet50_fpn": 1,
    "detect retinanet_resnet50_fpn": 1,
    "train fasterrcnn_resnet50_fpn": 1,
    "train retinanet_resnet50_fpn": 1,
    "nms 1000": 20,
    "nms 5000": 20,
    "roi_align": 5,
}

# Takes a step and gives a number, an array that may be on its way.
Step = Callable[[], Any]


def main() -> None:
    contender, work, weights = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print is no answer
    step = {"ours": ours, "torch": torch}[contender](*work.split(), path=weights)
    steps = 1  # the first time
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            value = float(step())
        answer = {
            "value": value,
            "seconds": (time.perf_counter() - start) / steps,
            "work": (time.process_time() - cpu) / steps,  # of all cores together
            "peak": peak_memory(contender),
        }
        print(json.dumps(answer), file=answers, flush=True)
        steps = WORK[work]


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, HEIGHT, WIDTH, 3), np.float32)


def boxes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes f32[N, 4] in a picture, of sides from 16 to 500, and scores f32[N]."""
    rng = np.random.default_rng(1)
    center = rng.uniform(0, [WIDTH, HEIGHT], (count, 2))
    half = np.exp(rng.uniform(np.log(16), np.log(500), (count, 2))) / 2
    found = np.concatenate([center - half, center + half], 1).clip(0, [WIDTH, HEIGHT] * 2)
    return found.astype(np.float32), rng.random(count, np.float32)


def maps() -> list[np.ndarray]:
    rng, sides = np.random.default_rng(2), (HEIGHT, 1344)
    return [
        rng.normal(size=(*(-(-side // s) for side in sides), CHANNELS)).astype(np.float32)
        for s in STRIDES
    ]


def ours(kind: str, name: str = "", *, path: str) -> Step:
    import jax
    import jax.numpy as jnp

    from jaxnets import detection

    if kind == "nms":
        own, scores = map(jnp.asarray, boxes(int(name)))
        nms = jax.jit(lambda own, scores: detection.nms(own, scores, 0.7, len(own))[1].sum())
        return lambda: nms(own, scores)
    if kind == "roi_align":
        levels, own = jax.tree.map(jnp.asarray, (maps(), boxes(REGIONS)[0]))
        align = jax.jit(detection.pyramid_roi_align, static_argnums=(2, 3))
        return lambda: align(levels, own, 7, tuple(1 / s for s in STRIDES))[0, 0, 0, 0]

    import optax

    from jaxnets import create_model
    from jaxnets.detection.task import Detection
    from jaxnets.weights import from_torch

    model = create_model(name)
    with np.load(path) as file:
        state = {key: file[key] for key in file.files}
    variables = jax.tree.map(jnp.asarray, dict(from_torch(name, state, "torchvision")))
    if kind == "detect":
        return lambda: len(detection.detect(model, variables, pictures(1))[0].boxes)

    task, optimizer = Detection(model), optax.sgd(RATE, 0.9)
    batch = training_batch()
    params, rest = variables.pop("params"), variables

    @jax.jit
    def train_step(params, momentum, key):
        (value, _), slopes = jax.value_and_grad(
            lambda params: task.loss({"params": params, **rest}, batch, key), has_aux=True
        )(params)
        updates, momentum = optimizer.update(slopes, momentum, params)
        return optax.apply_updates(params, updates), momentum, value

    held = [params, optimizer.init(params)]

    def step():
        *held[:], value = train_step(*held, jax.random.key(0))
        return value

    return step


def training_batch() -> dict[str, np.ndarray]:
    image = np.zeros((BATCH, HEIGHT, 1344, 3), np.float32)
    image[:, :, :WIDTH] = pictures(BATCH)
    own = boxes(BATCH * OBJECTS)[0].reshape(BATCH, OBJECTS, 4)
    return {
        "image": image,
        "size": np.array([[HEIGHT, WIDTH]] * BATCH, np.int32),
        "box": own,
        "label": np.arange(BATCH * OBJECTS, dtype=np.int32).reshape(BATCH, OBJECTS) % 90 + 1,
        "valid": np.ones((BATCH, OBJECTS), bool),
    }


def torch(kind: str, name: str = "", *, path: str) -> Step:
    import torch
    from torchvision import ops

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tensor(array):
        return torch.tensor(array, device=device)

    if kind == "nms":
        own, scores = map(tensor, boxes(int(name)))
        return lambda: len(ops.nms(own, scores, 0.7))
    if kind == "roi_align":
        levels = {
            str(k): tensor(own).permute(2, 0, 1)[None].contiguous() for k, own in enumerate(maps())
        }
        align, own = ops.MultiScaleRoIAlign(list(levels), 7, 2), tensor(boxes(REGIONS)[0])
        return lambda: align(levels, [own], [(HEIGHT, WIDTH)])[0, 0, 0, 0]

    model = _torchvision(name).to(device)
    state = {key: value.numpy(force=True) for key, value in model.state_dict().items()}
    np.savez(path, **state)
    if kind == "detect":
        model.eval()
        pixels = [tensor(pictures(1)[0]).permute(2, 0, 1).contiguous()]

        def detect():
            with torch.inference_mode():
                return len(model(pixels)[0]["boxes"])

        return detect

    batch = training_batch()
    pixels = [tensor(own).permute(2, 0, 1).contiguous() for own in batch["image"][:, :, :WIDTH]]
    truths = [
        {"boxes": tensor(own), "labels": tensor(label).long()}
        for own, label in zip(batch["box"], batch["label"], strict=True)
    ]
    optimizer = torch.optim.SGD(model.train().parameters(), RATE, 0.9)

    def step():
        optimizer.zero_grad()
        loss = sum(model(pixels, truths).values())
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _torchvision(name: str):
    """A detector as it is fine-tuned, all of it, with frozen normalization, and weights by which it
    finds something."""
    import torch
    from torchvision.models.detection import FasterRCNN, RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    options = {"backbone_name": "resnet50", "weights": None, "trainable_layers": 5}
    if name.startswith("fasterrcnn"):
        model = FasterRCNN(resnet_fpn_backbone(**options), 91)
        outputs, factor = model.roi_heads.box_predictor.cls_score, 60
    else:
        top = LastLevelP6P7(256, 256)
        model = RetinaNet(
            resnet_fpn_backbone(returned_layers=[2, 3, 4], extra_blocks=top, **options), 91
        )
        outputs, factor = model.head.classification_head.cls_logits, 400
    with torch.no_grad():
        for key, value in model.named_buffers():
            if key.endswith("bn3.weight"):
                value.fill_(0.2)  # otherwise every block would double what comes
        outputs.weight.mul_(factor)  # some scores are above the thresholds
    return model


if __name__ == "__main__":
    main()
