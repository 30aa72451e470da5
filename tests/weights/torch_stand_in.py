"""What of torch is used to read and write its files, for tests without torch: the files are pickles.

With torch installed, `torch` is that.
"""

import argparse
import contextlib
import importlib
import importlib.util
import pickle
import sys
import types

import numpy as np

INSTALLED = importlib.util.find_spec("torch") is not None


class Tensor:
    """What of torch's tensors is used: their values, if they need no gradient."""

    def __init__(self, value, requires_grad=False):
        self.value, self.requires_grad = np.asarray(value), requires_grad

    @property
    def shape(self):
        return self.value.shape

    @property
    def dtype(self):
        return f"torch.{self.value.dtype}"

    def detach(self):
        return Tensor(self.value)

    def float(self):
        return Tensor(self.value.astype(np.float32), self.requires_grad)

    def numpy(self):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        if self.value.dtype.name == "bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.value


def stand_in(load=None):
    """A module in torch's place, perhaps with another `load`."""
    safe = []

    @contextlib.contextmanager
    def safe_globals(names):
        safe[:] = names
        yield
        safe.clear()

    def read(path, *, map_location, weights_only, mmap):
        assert weights_only is True
        assert map_location == "cpu"
        assert argparse.Namespace in safe
        with open(path, "rb") as file:
            return pickle.load(file)

    def save(content, path):
        with open(path, "wb") as file:
            pickle.dump(content, file)

    return types.SimpleNamespace(
        load=load or read,
        save=save,
        from_numpy=Tensor,
        serialization=types.SimpleNamespace(safe_globals=safe_globals),
    )


def installed(monkeypatch):
    """torch itself, or else what stands in for it and is now imported by its name."""
    if INSTALLED:
        return importlib.import_module("torch")
    torch = stand_in()
    monkeypatch.setitem(sys.modules, "torch", torch)
    return torch


def tensors_of(torch, content):
    """Nested dicts and lists with tensors in place of arrays."""
    if isinstance(content, np.ndarray):
        return torch.from_numpy(content.copy())
    if isinstance(content, dict):
        return {key: tensors_of(torch, value) for key, value in content.items()}
    if isinstance(content, list):
        return [tensors_of(torch, value) for value in content]
    return content
