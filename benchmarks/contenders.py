"""The contenders of `train_step.py` and `inference.py`: one network, ready to take steps.

Each runs in a process of its own (`python contenders.py CONTENDER NETWORK ...`), takes a turn for every
line that it reads and answers with a line of JSON. The first turn is a step, a later one `--steps` of
them, of which only the last is waited for. torch and Keras are asked for only by those who
contend with them, so the process may be another Python's.

- ours: the zoo's model.
- flax: the same architecture of plain `nn.Conv`, `nn.BatchNorm` and `nn.max_pool`, by Flax.
- keras: `keras.applications`, on JAX.
- torch: torchvision, eager, channels last; on a GPU compiled by `torch.compile`.

Every train step is a forward and a backward pass and SGD with momentum 0.9, on the same random images.
"""

import argparse
import contextlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

CONTENDERS = ("ours", "flax", "keras", "torch")

# A generator of 64 x 64 pixels (Radford et al. 2016, figure 1), which is no model of the zoo: transposed
# 4x4 convolutions of stride 2. The first pixels are its noise, and of the image that it draws the first
# 1000 numbers are taken for scores.
DCGAN = "dcgan"
NOISE, WIDTHS = 100, (1024, 512, 256, 128, 3)

# Our name: that in keras.applications, that in torchvision.models.
NETWORKS = {
    "resnet50": ("ResNet50", "resnet50"),
    "mobilenet_v2_100": ("MobileNetV2", "mobilenet_v2"),
    "resnext50_32x4d": (None, "resnext50_32x4d"),
    "vgg16": ("VGG16", "vgg16"),
    "googlenet": (None, "googlenet"),
    "densenet121": ("DenseNet121", "densenet121"),
    "inception_v3": ("InceptionV3", "inception_v3"),
    "xception": ("Xception", None),
    "nasnet_mobile": ("NASNetMobile", None),
    "squeezenet1_0": (None, "squeezenet1_0"),
    "alexnet": (None, None),
    "alexnet_owt": (None, "alexnet"),  # torchvision's is this one
    DCGAN: (None, DCGAN),
}

# Segmenters, without auxiliary heads. Each pixel is a score and a label.
SEGNET, CLASSES = "segnet_vgg16", 21
SEGMENTERS = {
    "fcn_resnet50": (None, "fcn_resnet50"),
    "deeplabv3_resnet50": (None, "deeplabv3_resnet50"),
    SEGNET: (None, SEGNET),
}
LEARNING_RATE, MOMENTUM = 0.001, 0.9

# Takes a step and gives its loss (a logit where nothing is learned), an array that may be on its way.
Step = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("network", choices=NETWORKS | SEGMENTERS)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--inference", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    side = arguments.size
    images = rng.normal(size=(arguments.batch_size, side, side, 3)).astype(np.float32)
    if arguments.network in SEGMENTERS:
        labels = rng.integers(0, CLASSES, (arguments.batch_size, side, side))
    else:
        labels = rng.integers(0, 1000, arguments.batch_size)
    make = {"ours": ours, "flax": flax, "keras": keras, "torch": torch}[arguments.contender]
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print is no answer
    step = make(arguments.network, images, labels, arguments.inference, arguments.precision)
    turns = itertools.chain([1], itertools.repeat(arguments.steps))
    for _, steps in zip(sys.stdin, turns, strict=False):
        start, work = time.perf_counter(), time.process_time()
        for _ in range(steps):
            value = step()
        answer = {
            "value": float(value),
            "seconds": (time.perf_counter() - start) / steps,
            "work": (time.process_time() - work) / steps,  # of all cores together
            "peak": peak_memory(arguments.contender),
        }
        print(json.dumps(answer), file=answers, flush=True)


def peak_memory(contender: str) -> int:
    """The most bytes held so far: of the accelerator's memory if there is one, else of the machine's."""
    if contender == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    else:
        import jax

        stats = jax.devices()[0].memory_stats()
        if stats:
            return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def multiply_adds(network: str, side: int) -> int:
    """Products of a forward pass of one image."""
    import jaxnets

    return jaxnets.summary(_model(network), (1, side, side, 3)).multiply_adds


def ours(network: str, images: np.ndarray, labels: np.ndarray, inference: bool, precision: str) -> Step:
    """Our model, with nothing switched on or off."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxnets.training.precision import cast, compute_dtype

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    model = _model(network)
    dtype = compute_dtype(precision)
    variables = dict(jax.jit(partial(model.init, train=False))(jax.random.key(0), images[:1]))
    jax.block_until_ready(variables)  # before the first step is timed
    if inference:
        scores = jax.jit(
            lambda variables, images: model.apply(
                cast_parameters(variables), images.astype(dtype), train=False
            )
        )

        def cast_parameters(variables):
            return {**variables, "params": cast(variables["params"], dtype)}

        return lambda: scores(variables, images).ravel()[0]

    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)
    params, rest = variables.pop("params"), variables

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train_step(params, rest, momentum, images, labels):
        def loss(params):
            scores, updated = model.apply(
                {"params": cast(params, dtype), **rest},
                images.astype(dtype),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            scores = scores.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
            return losses.mean(), {**rest, **updated}

        (value, rest_), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        updates, momentum = optimizer.update(slopes, momentum, params)
        return optax.apply_updates(params, updates), rest_, momentum, value

    state = [params, rest, optimizer.init(params)]

    def step():
        *state[:], value = train_step(*state, images, labels)
        return value

    return step


def _model(network: str):
    import jaxnets

    if network == DCGAN:
        return _generator()
    settings = {"aux": False} if "aux" in jaxnets.models.model_info(network).settings else {}
    return jaxnets.create_model(network, **settings if network in SEGMENTERS else {})


def _generator():
    import flax.linen as nn

    from jaxnets import layers

    class Generator(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            noise = images.reshape(len(images), -1)[:, :NOISE]
            x = nn.Dense(4 * 4 * WIDTHS[0])(noise).reshape(-1, 4, 4, WIDTHS[0])
            for width in WIDTHS[1:]:
                x = nn.relu(layers.BatchNorm(use_running_average=not train)(x))
                x = layers.ConvTranspose(width, 4, strides=2, padding=1)(x)
            return nn.tanh(x).reshape(len(x), -1)[:, :1000]

    return Generator()


def flax(network: str, images: np.ndarray, labels: np.ndarray, inference: bool, precision: str) -> Step:
    """As ours, of Flax's own layers, each computed by XLA's own operation."""
    with plain_flax():
        run = ours(network, images, labels, inference, precision)

    def step():
        with plain_flax():
            return run()

    return step


@contextlib.contextmanager
def plain_flax() -> Iterator[None]:
    """Within it our models are of Flax's own layers, each computed by XLA's own operation."""
    import flax.linen as nn

    from jaxnets import layers

    def plain(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, layers.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        names = ("use_running_average", "momentum", "epsilon", "use_bias", "use_scale")
        settings = {name: getattr(module, name) for name in names}
        # As ours does under a mapped axis, it takes statistics of the whole batch.
        axis = layers.DATA_AXIS if layers.axis_is_bound(layers.DATA_AXIS) else None
        return nn.BatchNorm(**settings, axis_name=axis, parent=module.scope)(*args, **kwargs)

    with layers.lowering("native"), nn.intercept_methods(plain):
        yield


def keras(network: str, images: np.ndarray, labels: np.ndarray, inference: bool, precision: str) -> Step:
    """The model of `keras.applications`, its own optimizer and loss, in one jitted function."""
    import jax
    import jax.numpy as jnp

    images, labels = jnp.asarray(images), jnp.asarray(labels)
    function, state = keras_function(network, images.shape[1:], inference, precision)
    if inference:
        scores = jax.jit(function)
        return lambda: scores(*state, images)[0, 0]
    train_step = jax.jit(function, donate_argnums=(0, 1, 2))

    def step():
        *state[:], value = train_step(*state, images, labels)
        return value

    return step


def keras_function(
    network: str, shape: tuple[int, ...], inference: bool, precision: str
) -> tuple[Callable, list]:
    """A model of `keras.applications` as a pure function, and the state that it begins with.

    It is `scores(trained, rest, images)`, or `train_step(trained, rest, optimizing, images, labels)`,
    which returns the three anew and the loss.
    """
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import jax.numpy as jnp
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    make = getattr(keras.applications, NETWORKS[network][0])
    model = make(weights=None, classifier_activation=None, input_shape=shape)
    trained = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    if inference:

        def scores(trained, rest, images):
            return model.stateless_call(trained, rest, images, training=False)[0]

        return scores, [trained, rest]

    optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
    optimizer.build(model.trainable_variables)

    def train_step(trained, rest, optimizing, images, labels):
        def loss(trained, rest):
            scores, rest = model.stateless_call(trained, rest, images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(
                labels, scores.astype(jnp.float32), from_logits=True
            )
            return losses.mean(), rest

        (value, rest), slopes = jax.value_and_grad(loss, has_aux=True)(trained, rest)
        trained, optimizing = optimizer.stateless_apply(optimizing, slopes, trained)
        return trained, rest, optimizing, value

    return train_step, [trained, rest, [v.value for v in optimizer.variables]]


def import_torchvision() -> ModuleType:
    """torchvision, also where it was built for another torch, whose operators it then lacks."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision

    return torchvision


def torch(network: str, images: np.ndarray, labels: np.ndarray, inference: bool, precision: str) -> Step:
    """torchvision's model, channels last; compiled and, for bfloat16, under autocast on a GPU."""
    import torch

    torchvision = import_torchvision()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"aux_logits": False} if network in ("googlenet", "inception_v3") else {}
    if options:
        options["init_weights"] = False
    if network == DCGAN:
        model = _torch_generator()
    elif network == SEGNET:
        from torch_segnet import SegNet

        model = SegNet(CLASSES)
    elif network in SEGMENTERS:
        options = {"weights": None, "weights_backbone": None, "aux_loss": False}
        model = _Scores(getattr(torchvision.models.segmentation, network)(**options))
    else:
        model = getattr(torchvision.models, NETWORKS[network][1])(**options)
    model = model.to(device, memory_format=torch.channels_last).train(not inference)
    pixels = torch.tensor(images, device=device).permute(0, 3, 1, 2)  # strides are channels last
    labels = torch.tensor(labels, device=device)
    run = torch.compile(model) if device == "cuda" else model
    autocast = partial(torch.autocast, device, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    if inference:

        def infer():
            with torch.inference_mode(), autocast():
                return run(pixels).flatten()[0]

        return infer

    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def step():
        optimizer.zero_grad()
        with autocast():
            scores = run(pixels)
        loss = torch.nn.functional.cross_entropy(scores.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


class _Scores:
    """A segmenter of torchvision, which returns its scores in a dict."""

    def __init__(self, model):
        self.model = model

    def to(self, *args, **kwargs):
        return _Scores(self.model.to(*args, **kwargs))

    def train(self, mode):
        self.model.train(mode)
        return self

    def parameters(self):
        return self.model.parameters()

    def __call__(self, pixels):
        return self.model(pixels)["out"]


def _torch_generator():
    from torch import nn

    class First(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.count = count

        def forward(self, x):
            return x.flatten(1)[:, : self.count]

    layers = [First(NOISE), nn.Linear(NOISE, 4 * 4 * WIDTHS[0])]
    layers.append(nn.Unflatten(1, (WIDTHS[0], 4, 4)))
    for before, width in itertools.pairwise(WIDTHS):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1))
    return nn.Sequential(*layers, nn.Tanh(), First(1000))


if __name__ == "__main__":
    main()
