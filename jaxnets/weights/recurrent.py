"""Recurrent networks between torch and jaxnets: RNN, LSTM and GRU, stacked or bidirectional.

torch keeps the kernels of all gates in one matrix a side, and two biases a gate, one for the input and
one for the state. Where only their sum acts there is one here: an LSTM's is on the state's side, the
RNN's and the GRU's r and z on the input's. Only the GRU's candidate n has both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnets.errors import InputError, unknown_name

# A gate's submodules and their order in torch; the side on which the sum of two biases lies.
_GATES = {"rnn": ("",), "lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}
_SUM_SIDE = {"rnn": "i", "lstm": "h", "gru": "i"}


def recurrent_from_torch(kind: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `layers.RNN`, `LSTM` or `GRU` from those of `torch.nn`'s.

    Args:
        kind: "rnn", "lstm" or "gru".
        state_dict: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `..._l0_reverse`, ...;
            arrays or torch tensors. Biases may be missing (`bias=False`): they become zeros.

    Raises:
        InputError: an unknown kind, or weights that are missing, left over or of other shapes.
    """
    gates = _gates(kind)
    rest = {name: np.asarray(value) for name, value in state_dict.items()}
    params: dict[str, Any] = {}
    for layer in range(sum(name.startswith("weight_ih_l") for name in rest)):
        for direction in ("", "_reverse"):
            suffix = f"_l{layer}{direction}"
            if f"weight_ih{suffix}" not in rest:
                continue
            try:
                kernels = {side: rest.pop(f"weight_{side}h{suffix}") for side in "ih"}
            except KeyError as error:
                raise InputError(f"state_dict has no {error.args[0]!r}") from None
            rows = kernels["h"].shape[0]
            if rows != len(gates) * kernels["h"].shape[1] or kernels["i"].shape[0] != rows:
                raise InputError(
                    f"weights *{suffix} have shapes {kernels['i'].shape} and {kernels['h'].shape}, "
                    f"which are not those of {kind}"
                )
            biases = {side: rest.pop(f"bias_{side}h{suffix}", np.zeros(rows)) for side in "ih"}
            params[f"layer{layer}{direction}"] = _cell(kind, gates, kernels, biases)
    if rest or not params:
        left = ", ".join(rest) or "nothing"
        raise InputError(f"state_dict is not that of one {kind} of torch.nn: left over is {left}")
    return params


def recurrent_to_torch(kind: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The `state_dict` of `torch.nn.RNN`, `LSTM` or `GRU` for parameters of ours.

    Where torch has two biases and we have their sum, the state's is zero (an LSTM's the input's).

    Args:
        kind: "rnn", "lstm" or "gru".
        params: `layer0`, `layer0_reverse`, `layer1`, ...

    Raises:
        InputError: an unknown kind.
    """
    gates, found = _gates(kind), {}
    for name, cell in params.items():
        layer, _, reverse = name.removeprefix("layer").partition("_")
        suffix = f"_l{layer}" + ("_reverse" if reverse else "")
        for side in "ih":
            parts = [cell[f"{side}{gate}"] for gate in gates]
            kernel = np.concatenate([np.asarray(part["kernel"]).T for part in parts])
            zero = np.zeros(kernel.shape[0] // len(gates), kernel.dtype)
            found[f"weight_{side}h{suffix}"] = kernel
            found[f"bias_{side}h{suffix}"] = np.concatenate(
                [np.asarray(part.get("bias", zero)) for part in parts]
            )
    return found


def _gates(kind: str) -> tuple[str, ...]:
    if kind not in _GATES:
        raise unknown_name("recurrent network", kind, _GATES)
    return _GATES[kind]


def _cell(kind: str, gates: tuple[str, ...], kernels: dict, biases: dict) -> dict[str, Any]:
    cell: dict[str, Any] = {}
    for side in "ih":
        for number, gate in enumerate(gates):
            rows = np.split(np.arange(len(kernels["h"])), len(gates))[number]
            part = {"kernel": np.ascontiguousarray(kernels[side][rows].T, np.float32)}
            if gate == "n":
                part["bias"] = biases[side][rows].astype(np.float32)
            elif side == _SUM_SIDE[kind]:
                part["bias"] = (biases["i"][rows] + biases["h"][rows]).astype(np.float32)
            cell[f"{side}{gate}"] = part
    return cell
