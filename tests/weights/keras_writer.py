"""Files as Keras 1, 2 and 3 write them, by h5py; `make_keras_goldens.py` compares them with Keras's."""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

_IN_KERAS_1 = {
    "kernel": "W",
    "bias": "b",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}


_IN_PATHS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
    "BatchNormalization": "batch_normalization",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "GlobalMaxPooling2D": "global_max_pooling2d",
    "Dropout": "dropout",
    "Dense": "dense",
    "Functional": "functional",
    "Sequential": "sequential",
}


class Layer(NamedTuple):
    """A layer of Keras, or a model, which is a layer with others in it.

    Attributes:
        kind: its class.
        name: its own.
        variables: arrays by their names, in order.
        layers: in it.
    """

    kind: str
    name: str
    variables: dict[str, np.ndarray]
    layers: Sequence["Layer"] = ()

    def walked(self) -> Iterator["Layer"]:
        yield self
        for layer in self.layers:
            yield from layer.walked()


def write_by_names(path: Any, model: Layer, version: int = 2, whole: bool = False) -> None:
    """An `.h5` file in the older layout.

    Args:
        path: of the file.
        model: what to write.
        version: of Keras, which calls variables otherwise in each.
        whole: whether the model's configuration is in it too.
    """
    with h5py.File(path, "w") as file:
        root = file
        if whole:
            file.attrs["model_config"] = json.dumps(_config(model))
            root = file.create_group("model_weights")
        names = [layer.name.encode() for layer in model.layers]
        _write_names(root, "layer_names", names)
        root.attrs["keras_version"] = {1: b"1.2.2", 2: b"2.11.0", 3: b"3.15.1"}[version]
        for layer in model.layers:
            group = root.create_group(layer.name)
            found = [
                (_name(inner, leaf, version), leaf, value)
                for inner in layer.walked()
                for leaf, value in inner.variables.items()
            ]
            found.sort(key=lambda variable: variable[1].startswith("moving_"))  # what is trained first
            _write_names(group, "weight_names", [name.encode() for name, _, _ in found])
            for name, _, value in found:
                group[name] = value


def write_by_positions(path: Any, model: Layer, names: bool = True) -> None:
    """A `.weights.h5` file of Keras 3; before Keras 3.6 there were no names of layers in it."""
    with h5py.File(path, "w") as file:
        _write_positions(file, model, "", names)


def write_archive(path: Any, model: Layer, names: bool = True) -> None:
    """A `.keras` file; `names` as above."""
    weights = io.BytesIO()
    write_by_positions(weights, model, names)
    with zipfile.ZipFile(path, "w") as entries:
        entries.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        entries.writestr("config.json", json.dumps(_config(model)))
        entries.writestr("model.weights.h5", weights.getvalue())


def _write_names(group: Any, attribute: str, names: list[bytes]) -> None:
    """In pieces where they are too many for one attribute of HDF5, which holds 64 KiB."""
    if np.asarray(names).nbytes < 64512:
        group.attrs[attribute] = names
        return
    for i, piece in enumerate(np.array_split(np.asarray(names), 4)):
        group.attrs[f"{attribute}{i}"] = piece


def _name(layer: Layer, leaf: str, version: int) -> str:
    if version == 1:
        return f"{layer.name}_{_IN_KERAS_1.get(leaf, leaf)}_1:0"
    if version == 3:
        return f"{layer.name}/{leaf}"
    if layer.kind == "DepthwiseConv2D":
        leaf = f"depthwise_{leaf}"
    return f"{layer.name}/{leaf}:0"


def _write_positions(file: Any, layer: Layer, path: str, names: bool) -> None:
    group = file.create_group(f"{path}vars")
    if names:
        group.attrs["name"] = layer.name
    for i, value in enumerate(layer.variables.values()):
        group[str(i)] = value
    counts: dict[str, int] = {}
    for inner in layer.layers:
        kind = _IN_PATHS[inner.kind]
        count = counts[kind] = counts.get(kind, -1) + 1
        _write_positions(file, inner, f"{path}layers/{kind}{f'_{count}' if count else ''}/", names)


def _config(layer: Layer) -> dict[str, Any]:
    config = {"name": layer.name}
    if layer.layers:
        config["layers"] = [_config(inner) for inner in layer.layers]
    return {"class_name": layer.kind, "name": layer.name, "config": config}
