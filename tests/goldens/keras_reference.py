"""Keras's applications, seen as make_goldens.py sees a model of torch.

Layers keep Keras's names; below them parameters have torch's names and layouts, which is what
`jaxnets.weights.from_keras` turns a user's Keras weights into.
"""

import os
from collections.abc import Mapping
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"  # all references compute in float64

import keras
import numpy as np
import torch
from keras_layouts import LEAVES, axes_in_torch


class KerasModel:
    """An application, of float64, for images of one size.

    Args:
        constructor: its name in `keras.applications`.
        size: side of the images.
        options: further arguments.
    """

    def __init__(self, constructor: str, size: int, options: Mapping[str, Any]) -> None:
        keras.config.set_floatx("float64")
        keras.backend.clear_session()  # layers without a name are numbered through the session
        self._model = getattr(keras.applications, constructor)(
            weights=None, input_shape=(size, size, 3), classifier_activation=None, **options
        )
        self._variables = {}  # each with the order of its axes in torch
        for layer in self._model.layers:
            for variable in layer.weights:
                leaf = variable.path.rpartition("/")[2]
                name = f"{layer.name}.{LEAVES.get(leaf, leaf)}"
                self._variables[name] = (
                    variable,
                    axes_in_torch(type(layer).__name__, leaf, len(variable.shape)),
                )

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {
            name: torch.from_numpy(np.array(variable).transpose(axes))
            for name, (variable, axes) in self._variables.items()
        }
        # As beside torch's own running statistics.
        counters = [name.removesuffix("running_var") for name in state if name.endswith("running_var")]
        return state | {f"{layer}num_batches_tracked": torch.tensor(0) for layer in counters}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, (variable, axes) in self._variables.items():
            variable.assign(state[name].numpy().transpose(np.argsort(axes)))

    def parameters(self) -> list[torch.Tensor]:
        state = self.state_dict()
        return [state[name] for name in self._variables if "running_" not in name]

    def double(self) -> "KerasModel":
        return self

    def eval(self) -> "KerasModel":
        return self

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self._model(images.numpy().transpose(0, 2, 3, 1), training=False)
        return torch.from_numpy(np.array(outputs))
