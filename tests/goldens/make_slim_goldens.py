"""Runs TF-Slim's published nets once and writes what they answer: `python make_slim_goldens.py NETS
[NAME ...]`.

NETS is the folder that holds the package `nets`: research/slim of tensorflow/models, which the source
archive of tf-models-research-object-detection 2.8.0 has too, in its folder `slim`. In an environment of
its own, on Python 3.11:

    pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 tf-slim==1.1.0

Without names every row of `slim_rows.GOLDENS` is made. With `--checkpoints FOLDER` TensorFlow's
checkpoints are kept there, of version 1 and of version 2 in turn.
"""

import argparse
import importlib
import os
import sys
import time
import types
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}

import draw
import numpy as np
import slim_rows
import tensorflow.compat.v1 as tf

DATA = Path(__file__).parent / "data" / "slim"


class Settings(types.SimpleNamespace):
    """What `tensorflow.contrib.training.HParams` did, which TensorFlow no longer has."""

    def set_hparam(self, name: str, value: Any) -> None:
        setattr(self, name, value)


def provide_old_modules() -> None:
    """What slim and its nets import and today's TensorFlow has elsewhere or no longer."""
    contrib = types.ModuleType("tensorflow.contrib")
    contrib.training = types.SimpleNamespace(HParams=Settings)
    sys.modules["tensorflow.contrib"] = contrib
    layers = importlib.import_module("tf_keras.src.legacy_tf_layers")
    sys.modules["tf_keras.legacy_tf_layers"] = layers
    for part in ("base", "convolutional", "core", "pooling"):
        module = importlib.import_module(f"{layers.__name__}.{part}")
        sys.modules[f"tf_keras.legacy_tf_layers.{part}"] = module


def found(name: str) -> Any:
    """A function below `nets`."""
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(f"nets.{module}"), function)


def make(name: str, row: slim_rows.Slim, checkpoints: Path | None, version: int) -> str:
    import tf_slim

    start = time.perf_counter()
    tf.reset_default_graph()
    images = draw.images(slim_rows.IMAGES, row.size)
    with tf_slim.arg_scope(found(row.scope)()):
        answer, _ = found(row.constructor)(
            tf.constant(images), num_classes=row.classes, is_training=False, **row.options
        )
    variables = {variable.op.name: variable for variable in tf_slim.get_model_variables()}
    shapes = {key: tuple(variable.shape.as_list()) for key, variable in variables.items()}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        drawn = slim_rows.drawn(shapes, row.quiet)
        feed = {variables[key].initializer.inputs[1]: value for key, value in drawn.items()}
        session.run([variable.initializer for variable in variables.values()], feed)
        logits = session.run(answer)
        if checkpoints:
            path = checkpoints / f"{name}.ckpt"
            tf.train.Saver(write_version=version).save(session, str(path), write_meta_graph=False)
    logits = logits.reshape(slim_rows.IMAGES, row.classes)
    bite = np.linalg.norm(logits - logits.mean(0)) / np.linalg.norm(logits - logits.mean())
    np.savez_compressed(
        DATA / f"{name}.npz",
        reference=f"tf-slim {metadata.version('tf-slim')}, tensorflow {metadata.version('tensorflow')}",
        variables="\n".join(f"{key} {' '.join(map(str, shape))}" for key, shape in shapes.items()),
        size=row.size,
        logits=logits.astype(np.float32),
        bite=bite,
    )
    return (
        f"{name:22} {sum(map(np.prod, shapes.values())):11,} numbers  {row.size:3} px  bite {bite:.2f}  "
        f"scores {logits.std():8.2g}  {time.perf_counter() - start:5.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", help="the folder that holds the package `nets`")
    parser.add_argument("names", nargs="*", help="rows of slim_rows.GOLDENS; all of them if none")
    parser.add_argument("--checkpoints", type=Path, help="a folder for TensorFlow's checkpoints")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.nets)
    provide_old_modules()
    tf.disable_v2_behavior()
    DATA.mkdir(exist_ok=True)
    for i, name in enumerate(arguments.names or slim_rows.GOLDENS):
        print(make(name, slim_rows.GOLDENS[name], arguments.checkpoints, 1 + i % 2), flush=True)


if __name__ == "__main__":
    main()
