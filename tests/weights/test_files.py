import hashlib
import json
import pickle
import struct
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.weights import files

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "brain": np.linspace(-3, 3, 7).astype(jnp.bfloat16),
    "count": np.array(3, np.int64),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not in C order in memory
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tensors.safetensors"
    files.write_safetensors(path, TENSORS, {"who": "we"})
    return path


def test_the_file_is_as_the_format_says(path):
    """Eight bytes of length, a header in JSON, and the arrays' bytes: read by hand."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__") == {"who": "we", "format": "pt"}
    assert header.keys() == TENSORS.keys()
    for name, about in header.items():
        begin, end = (8 + length + offset for offset in about["data_offsets"])
        assert raw[begin:end] == TENSORS[name].tobytes(order="C")
        assert tuple(about["shape"]) == TENSORS[name].shape


def test_what_is_written_is_read_bit_for_bit(path):
    tensors, metadata = files.read_safetensors(path)
    assert metadata["who"] == "we"
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert (tensors[name].shape, tensors[name].dtype) == (value.shape, value.dtype)
        read = np.asarray(tensors[name])
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read, value)
    assert np.asarray(tensors["brain"], np.float32).dtype == np.float32


def test_shapes_are_told_without_reading(path, monkeypatch):
    def read(*args, **kwargs):
        raise AssertionError("it was read")

    monkeypatch.setattr(files.LazyTensor, "__array__", read)
    tensors, _ = files.read_safetensors(path)
    assert np.shape(tensors["conv.weight"]) == (2, 3, 2, 2)


@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_a_safetensors_file_that_is_cut_short_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"tensors.safetensors is no whole safetensors file \(.*again"):
        files.read_safetensors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        files.read_safetensors(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors at all, but some text of a certain length")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        files.read_safetensors(tmp_path / "text.safetensors")


def test_without_torch_its_files_are_refused_with_advice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").write_bytes(b"...")
    with pytest.raises(InputError, match=r"pip install 'jaxnets\[torch\]', or use .safetensors"):
        files.read_torch(tmp_path / "weights.pth")
    with pytest.raises(InputError, match="need torch"):
        files.write_torch(tmp_path / "weights.pth", {})
    with pytest.raises(InputError, match="no such file"):
        files.read_torch(tmp_path / "none.pth")


def test_published_files_must_have_the_hash_in_their_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    content = b"the weights"
    sha = hashlib.sha256(content).hexdigest()
    good = tmp_path / f"net-{sha[:8]}.pth"
    good.write_bytes(content)
    with pytest.raises(InputError, match="need torch"):  # past the hash
        files.read_torch(good)
    good.write_bytes(content + b"!")
    with pytest.raises(InputError, match=f"is damaged: .* published with {sha[:8]}"):
        files.read_torch(good)


class FakeTensor:
    """What of torch's tensors is used: their values."""

    dtype = "float32"

    def __init__(self, value):
        self.value = value

    def numpy(self):
        return self.value


@pytest.fixture
def torch_that_loads(monkeypatch, tmp_path):
    """`torch`, whose `load` gives (or raises) what it is told, and only with `weights_only=True`."""

    def loads(content):
        def load(path, *, map_location, weights_only, mmap):
            assert weights_only is True
            assert map_location == "cpu"
            if isinstance(content, Exception):
                raise content
            return content

        fake = types.SimpleNamespace(
            load=load, bfloat16="bfloat16", is_tensor=lambda value: isinstance(value, FakeTensor)
        )
        monkeypatch.setitem(sys.modules, "torch", fake)
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps("a pickle, but no zip"))
        return path

    return loads


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3}])
def test_tensors_come_by_name_out_of_what_scripts_save(torch_that_loads, wrap):
    value = np.arange(3, dtype=np.float32)
    path = torch_that_loads(wrap({"module.fc.weight": FakeTensor(value)}))
    read = files.read_torch(path)
    assert list(read) == ["fc.weight"]
    np.testing.assert_array_equal(read["fc.weight"], value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.UnpicklingError("Weights only load failed"), "refused, and nothing in it was run"),
        (RuntimeError("PytorchStreamReader failed\nwith more"), r"as torch's \(Pyt.* failed\); fetch"),
        ([FakeTensor(0)], "holds no state dict"),
        ({"a": FakeTensor(0), "b": "text"}, "holds no state dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(torch_that_loads, content, message):
    with pytest.raises(InputError, match=message):
        files.read_torch(torch_that_loads(content))


def test_half_a_zip_is_told_to_be_cut_short(torch_that_loads):
    path = torch_that_loads({})
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="is cut short"):
        files.read_torch(path)
