import hashlib
import json
import pickle
import struct
import sys
import traceback

import jax.numpy as jnp
import numpy as np
import pytest
from torch_stand_in import Tensor, stand_in

from jaxnets.errors import InputError
from jaxnets.models import published_weights
from jaxnets.weights import files

ADVICE = "Re-running `torch.load` with `weights_only` set to `False` will likely succeed"
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
    row = published_weights("resnet18")[-1]._replace(source=f"torchvision:{good.name}")
    monkeypatch.setattr(files, "published_weights", lambda name: [row])
    good.write_bytes(content)
    with pytest.raises(InputError, match="need torch"):  # past the hash
        files.read_torch(good)
    good.write_bytes(content + b"!")
    with pytest.raises(InputError, match=f"is damaged: .* published with {sha[:8]}"):
        files.read_torch(good)
    # A date or a step in the name of one's own file is no hash.
    own = good.rename(tmp_path / "resnet18-20250131.pth")
    with pytest.raises(InputError, match="need torch"):
        files.read_torch(own)


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

        monkeypatch.setitem(sys.modules, "torch", stand_in(load))
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps("a pickle, but no zip"))
        return path

    return loads


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3}])
def test_tensors_come_by_name_out_of_what_scripts_save(torch_that_loads, wrap):
    value = np.arange(3, dtype=np.float32)
    path = torch_that_loads(wrap({"fc.weight": Tensor(value, requires_grad=True)}))
    ((key, read),) = files.read_torch(path).items()
    assert key.endswith("fc.weight")
    assert read.shape == (3,)
    np.testing.assert_array_equal(read, value)
    assert np.asarray(read, np.float16).dtype == np.float16


def test_brain_floats_are_read_bit_for_bit(torch_that_loads):
    read = files.read_torch(torch_that_loads({"brain": Tensor(TENSORS["brain"])}))["brain"]
    assert np.asarray(read).dtype == jnp.bfloat16
    np.testing.assert_array_equal(read, TENSORS["brain"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pickle.UnpicklingError(f"GLOBAL os.system was ... {ADVICE}"),
            r"in it was run: .* \(os.system\)",
        ),
        (RuntimeError("PytorchStreamReader failed\nwith more"), r"as torch's \(Pyt.* failed\); fetch"),
        (RuntimeError(f"TorchScript? {ADVICE}"), "nothing in it was run: it is a TorchScript program"),
        (RuntimeError(), r"as torch's \(RuntimeError\); fetch"),
        (Tensor(0), "holds no state dict"),
        ({"a": 0, "b": "text"}, "holds no state dict, but a, b; wanted tensors by name"),
    ],
)
def test_what_is_no_state_dict_is_refused(torch_that_loads, content, message):
    path = torch_that_loads(content)
    with pytest.raises(InputError, match=message) as refusal:
        files.read_torch(path)
    shown = "".join(traceback.format_exception(refusal.value))  # as a script prints it
    assert ADVICE not in shown


def test_half_a_zip_is_told_to_be_cut_short(torch_that_loads):
    path = torch_that_loads({})
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="is cut short"):
        files.read_torch(path)
