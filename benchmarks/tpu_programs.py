"""The programs of `tpu_compile.py`: one of them is compiled for a TPU, and the compiler asked about it.

`python tpu_programs.py CONTENDER NETWORK WHAT --batch-size 64` prints a line of JSON. It is a process of
its own, since a compiler that is at work can only be ended with its process.

- ours: the model of the zoo, its task, the augmentation of ImageNet for classifiers, SGD with momentum.
- flax: the same with Flax's own layers, each computed by XLA's own operation.
- keras: `keras.applications` on JAX, its own loss and optimizer, after the same augmentation.
"""

import argparse
import contextlib
import json
import math
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from contenders import keras_function, plain_flax
from tpu_topology import TOPOLOGIES, devices_of, lower

import jaxnets
from jaxnets import captioning, data
from jaxnets.data import inputs
from jaxnets.models import model_info
from jaxnets.training import DataParallel, Task, create_optimizer, create_state, make_train_step
from jaxnets.training.precision import cast

CONTENDERS = ("ours", "flax", "keras")
PROGRAMS = ("train step", "forward pass")
CAPTIONERS = ("show_and_tell", "lrcn", "show_attend_tell")  # on a ResNet-50
OBJECTS, SENTENCES, WORDS = 32, 5, 20  # of a picture, of a picture, of a sentence

Shapes = dict[str, jax.ShapeDtypeStruct]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("network")
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="v5e:1x1")
    parser.add_argument("--batch-size", type=int, required=True, help="of a device")
    parser.add_argument("--effort", type=float, default=0.0)
    arguments = parser.parse_args()
    devices = devices_of(arguments.topology)
    jax.config.update("jax_exec_time_optimization_effort", arguments.effort)
    inference = arguments.program == "forward pass"
    if inference:
        devices = devices[:1]  # nothing is shared among them
    make = keras if arguments.contender == "keras" else ours
    layers = plain_flax if arguments.contender == "flax" else contextlib.nullcontext
    task, batch = task_of(arguments.network, arguments.batch_size * len(devices))
    with layers():
        lowered = make(arguments.network, task, batch, inference, devices)
    print(json.dumps(costs(lowered)), flush=True)


def costs(lowered: jax.stages.Lowered) -> dict[str, float]:
    """Compiles a program and asks the compiler about it.

    Returns:
        Of one device: processor `seconds` of compiling, bytes of memory `held` and `kept` (of them,
        the state or variables), `flops`, and bytes `moved` to and from memory.
    """
    whole, _ = lowered.args_info[0]
    start = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - start
    held, counted = compiled.memory_analysis(), compiled.cost_analysis()
    made = held.output_size_in_bytes - held.alias_size_in_bytes + held.temp_size_in_bytes
    return {
        "seconds": seconds,
        "held": held.argument_size_in_bytes + made,
        "kept": sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(whole)),
        "flops": counted["flops"],
        "moved": counted["bytes accessed"],
    }


def ours(network: str, task: Task, batch: Shapes, inference: bool, devices: tuple) -> jax.stages.Lowered:
    """Our train step, data parallel by `pmap` over several devices, or our scores."""
    parallel = DataParallel.create(devices=devices)
    if not inference:
        optimizer = create_optimizer("momentum", 0.1, weight_decay=1e-4)
        state = jax.eval_shape(partial(create_state, task, optimizer), jax.random.key(0), batch)
        step = parallel.compile_train_step(make_train_step(task, optimizer, precision="bfloat16"))
        return lower(step, parallel, state, batch)

    def predict(variables, batch):
        params = cast(variables["params"], jnp.bfloat16)
        return task.predict({**variables, "params": params}, batch)

    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    return lower(parallel.compile_predict(predict), parallel, variables, batch)


def keras(
    network: str, task: Task, batch: Shapes, inference: bool, devices: tuple
) -> jax.stages.Lowered:
    """Keras's train step on one device, or its scores; without the weights of examples."""
    parallel = DataParallel.create("single", devices)
    function, state = keras_function(network, batch["image"].shape[1:], inference, "bfloat16")

    def predict(state, batch):
        return function(*state, inputs.normalized(batch["image"], task.mean, task.std))

    def step(state, batch):
        images = inputs.augmented(jax.random.key(0), batch, task.augment)["image"]
        *state, loss = function(*state, inputs.normalized(images, task.mean, task.std), batch["label"])
        return state, loss

    compiled = parallel.compile_predict(predict) if inference else parallel.compile_train_step(step)
    return lower(compiled, parallel, state, batch)


def task_of(network: str, count: int) -> tuple[Any, Shapes]:
    """The task of a network of ours, and shapes of a batch at the size that it was made for."""

    def batch(size: tuple[int, int, int], **arrays: jax.ShapeDtypeStruct) -> Shapes:
        images = jax.ShapeDtypeStruct((count, *size), jnp.uint8)
        return {"image": images, "weight": jax.ShapeDtypeStruct((count,), jnp.float32), **arrays}

    if network in CAPTIONERS:
        task = captioning.Captioning(captioning.create_captioner(network))
        sentences = jax.ShapeDtypeStruct((count, SENTENCES, WORDS), jnp.int32)
        return task, batch((224, 224, 3), captions=sentences)
    model, info = jaxnets.create_model(network), model_info(network)
    if info.task == "detection":
        found = {"box": ((4,), jnp.float32), "label": ((), jnp.int32), "valid": ((), jnp.bool)}
        arrays = {
            name: jax.ShapeDtypeStruct((count, OBJECTS, *shape), dtype)
            for name, (shape, dtype) in found.items()
        }
        return jaxnets.Detection(model), batch(info.input_size, **arrays)
    if info.task == "segmentation":
        labels = jax.ShapeDtypeStruct((count, *info.input_size[:2]), jnp.uint8)
        return jaxnets.Segmentation(model), batch(info.input_size, segmentation=labels)
    task = jaxnets.Classification(model, augment=data.augmentation.imagenet())
    return task, batch(info.input_size, label=jax.ShapeDtypeStruct((count,), jnp.int32))


if __name__ == "__main__":
    main()
