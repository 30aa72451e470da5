"""Has Keras's applications answer, on JAX: `python make_keras_goldens.py [NAME ...]`.

For each row of `keras_rows.APPLICATIONS` the whole application and a fine-tuned one are given drawn
weights and score images, in float64, into `data/keras/`. With the same weights the files of
`keras_writer.py` are written, compared with those that Keras writes, and read by Keras. In an
environment of its own:

    pip install keras==3.15.1 jax==0.10.2 h5py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "weights"))

import draw
import h5py
import jax
import keras
import numpy as np
from keras.src.applications.densenet import DenseNet
from keras.src.applications.resnet import ResNet, stack_residual_blocks_v1, stack_residual_blocks_v2
from keras_rows import APPLICATIONS, DATA, TUNED_CLASSES, Application, application, layer_of, tuned
from keras_writer import write_archive, write_by_names, write_by_positions
from rows import asked

IMAGES = 2


def _short_resnet(stack, preact, depths, **others):
    def stages(x):
        for stage, depth in enumerate(depths):
            first = 1 if stage == (len(depths) - 1 if preact else 0) else 2
            x = stack(x, 64 * 2**stage, depth, stride1=first, name=f"conv{stage + 2}")
        return x

    return ResNet(stages, preact, True, **others)


SHORTENED = {
    "ShortResNet": lambda **others: _short_resnet(stack_residual_blocks_v1, False, **others),
    "ShortResNetV2": lambda **others: _short_resnet(stack_residual_blocks_v2, True, **others),
    "ShortDenseNet": lambda depths, **others: DenseNet(depths, **others),
}


def built(row: Application, **others) -> keras.Model:
    keras.backend.clear_session()  # layers without a name are numbered through the session
    constructor = SHORTENED.get(row.constructor) or getattr(keras.applications, row.constructor)
    shape = (row.size, row.size, 3)
    return constructor(weights=None, input_shape=shape, **row.options, **others)


def line_of(layer: keras.Layer) -> str:
    variables = [
        f"{variable.path.rpartition('/')[2]} {' '.join(map(str, variable.shape))}"
        for variable in layer.weights
    ]
    return "; ".join([f"{type(layer).__name__} {layer.name}", *variables])


def give(model: keras.Model, quiet: str) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            give(layer, quiet)
        elif layer.weights:
            layer.set_weights(list(layer_of(line_of(layer), quiet).variables.values()))


def answer(model: keras.Model, size: int) -> np.ndarray:
    variables = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    call = jax.jit(lambda images: model.stateless_call(variables, others, images, training=False)[0])
    return np.asarray(call(draw.images(IMAGES, size).astype(np.float64)))


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def tree(path: Path) -> dict[str, object]:
    """The arrays of a file by path, and the names that stand beside them."""
    found = {}

    def visit(name, value):
        parts = name.split("/")
        if not isinstance(value, h5py.Dataset):
            return
        if parts[0] == "layers":
            found[name] = value.shape, str(value.parent.attrs["name"])
        else:  # between a layer and the name of a variable there may be scopes
            attributes = value.file["/".join(parts[:2])].attrs
            keys = sorted(key for key in attributes if key.startswith("weight_names"))
            names = [name for key in keys for name in attributes[key]]  # in pieces, if they are many
            ends = ["/".join(_text(name).split("/")[-2:]) for name in names]
            found["/".join(parts[:2] + parts[-2:])] = value.shape, ends

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def compare(model: keras.Model, ours, folder: Path) -> None:
    """Writes a model's files by Keras and by `keras_writer`; Keras must read ours, and both be alike."""
    before = model.get_weights()
    theirs = {"h5": folder / "theirs.h5", "weights.h5": folder / "theirs.weights.h5"}
    mine = {ending: folder / f"ours.{ending}" for ending in theirs}
    model.save(theirs["h5"])
    model.save_weights(theirs["weights.h5"])
    write_by_names(mine["h5"], ours, 3, whole=True)
    write_by_positions(mine["weights.h5"], ours)
    for ending in theirs:
        assert tree(theirs[ending]) == tree(mine[ending]), ending
    older = folder / "older.h5"
    for version in (1, 2):
        write_by_names(older, ours, version)
        if version == 1 and any(layer.layers for layer in ours.layers):
            continue
        model.set_weights([np.zeros_like(value) for value in before])
        model.load_weights(older)
        for value, wanted in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, wanted)
    archive = folder / "ours.keras"
    write_archive(archive, ours)
    for path in (mine["weights.h5"], archive):
        model.set_weights([np.zeros_like(value) for value in before])
        model.load_weights(path)
        for value, wanted in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, wanted)


def make(name: str, row: Application) -> str:
    """Writes the golden of a row, and says how it went."""
    start = time.perf_counter()
    model = built(row, classifier_activation=None)
    give(model, row.quiet)
    logits = answer(model, row.size)
    lines = "\n".join(line_of(layer) for layer in model.layers if layer.weights)
    whole = application(lines, row.quiet)

    base = built(row, include_top=False)
    images = keras.Input((row.size, row.size, 3))
    features = keras.layers.GlobalAveragePooling2D(name="means")(base(images, training=False))
    dropped = keras.layers.Dropout(0.2, name="dropout")(features)
    own = keras.Model(images, keras.layers.Dense(TUNED_CLASSES, name="dense")(dropped))
    give(own, row.quiet)
    dense = line_of(own.layers[-1])
    tuned_logits = answer(own, row.size)

    with tempfile.TemporaryDirectory() as folder:
        whole = whole._replace(name=model.name)
        compare(model, whole, Path(folder))
        compare(own, tuned(whole, dense), Path(folder))
    np.savez_compressed(
        DATA / f"{name}.npz",
        reference=f"keras {keras.__version__}",
        layers=lines,
        dense=dense,
        logits=logits.astype(np.float32),
        tuned=tuned_logits.astype(np.float32),
    )
    bites = (
        np.linalg.norm(x - x.mean(0)) / np.linalg.norm(x - x.mean()) for x in (logits, tuned_logits)
    )
    seconds = time.perf_counter() - start
    return (
        f"{name:20} scores {logits.std():8.2g} {tuned_logits.std():8.2g}  "
        f"bites {', '.join(f'{bite:.2f}' for bite in bites)}  {seconds:5.1f} s"
    )


def main() -> None:
    keras.config.set_floatx("float64")
    for name in asked(__doc__, "keras_rows.APPLICATIONS", APPLICATIONS):
        print(make(name, APPLICATIONS[name]), flush=True)


if __name__ == "__main__":
    main()
