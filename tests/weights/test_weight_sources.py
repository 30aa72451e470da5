"""Fetching is tested with a cache that is shaped as the hub's, and with a server that is not there."""

import io
import json
import sys
import urllib.request

import numpy as np
import pytest
from huggingface_hub import constants

from jaxnets.errors import InputError
from jaxnets.weights import files, sources

CONFIG = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the hub and of torch, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def weights():
    return {"fc.bias": np.arange(4, dtype=np.float32)}


def in_the_hubs_cache(cache, repository, weights, config=CONFIG):
    """Puts a repository where `huggingface_hub` would have put it."""
    folder = cache / "hub" / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    files.write_safetensors(snapshot / "model.safetensors", weights)
    (snapshot / "config.json").write_text(json.dumps(config))
    return snapshot


def test_a_repository_is_read_from_the_hubs_cache(caches, weights):
    in_the_hubs_cache(caches, "timm/resnet18.a1_in1k", weights)
    checkpoint = sources.read("hf:timm/resnet18.a1_in1k")
    assert checkpoint.config == CONFIG
    np.testing.assert_array_equal(checkpoint.tensors["fc.bias"], weights["fc.bias"])
    assert sources.hub_config("timm/resnet18.a1_in1k") == CONFIG


def test_what_cannot_be_fetched_is_told_with_the_files_and_their_place(caches):
    with pytest.raises(InputError) as refusal:
        sources.read("hf:timm/resnet18.a1_in1k")
    text = str(refusal.value)
    assert "hf:timm/resnet18.a1_in1k is not in the cache" in text
    assert "HF_HUB_OFFLINE is set" in text
    assert "get model.safetensors and config.json from https://huggingface.co/timm/resnet18.a1" in text
    assert "give that folder as the source" in text
    with pytest.raises(InputError) as refusal:
        sources.read("torchvision:resnet18-f37072fd.pth")
    assert (
        "get https://download.pytorch.org/models/resnet18-f37072fd.pth on another machine and put it "
        f"into {caches / 'torch' / 'hub' / 'checkpoints'}"
    ) in str(refusal.value)
    with pytest.raises(InputError, match="not of the form hf:OWNER/NAME"):
        sources.read("hf:a/b/c/d")


def test_a_folder_with_the_hubs_files_will_do(tmp_path, weights):
    with pytest.raises(InputError, match="holds no weights: wanted model.safetensors"):
        sources.read(tmp_path)
    files.write_safetensors(tmp_path / "model.safetensors", weights)
    assert sources.read(tmp_path).config == {}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert sources.read(tmp_path).config == CONFIG
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is not JSON"):
        sources.read(tmp_path)


@pytest.fixture
def served(monkeypatch):
    """A network that answers with these bytes, or not at all."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(sys.modules, "torch", None)  # what is read afterwards is not the matter here

    def serve(content):
        asked = []

        def urlopen(url, timeout):
            asked.append(url)
            if content is None:
                raise urllib.error.URLError("unreachable")
            return io.BytesIO(content)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return serve


def test_a_published_file_is_fetched_once_and_checked(caches, served):
    import hashlib

    sha = hashlib.sha256(b"weights").hexdigest()[:8]
    name, folder = f"resnet18-{sha}.pth", caches / "torch" / "hub" / "checkpoints"
    asked = served(b"weights")
    for _ in range(2):
        with pytest.raises(InputError, match="need torch"):
            sources.read(f"torchvision:{name}")
    assert asked == [f"https://download.pytorch.org/models/{name}"]
    assert (folder / name).read_bytes() == b"weights"

    with pytest.raises(InputError, match="is damaged"):
        sources.read("torchvision:resnet18-00000000.pth")
    served(None)
    with pytest.raises(InputError, match="cannot be fetched .*unreachable.*: get https://download"):
        sources.read("torchvision:resnet18-f37072fd.pth")
    assert [path.name for path in folder.iterdir()] == [name]  # nothing half-fetched is left


def test_other_sources_are_refused(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")
    for source in (tmp_path / "weights.onnx", "resnet50", "onnx:resnet50.onnx"):
        with pytest.raises(InputError, match="source: .* holds no weights that are known; wanted"):
            sources.read(source)
    with pytest.raises(InputError, match="no such file"):
        sources.read(tmp_path / "none.safetensors")


def test_sources_are_told_from_names(tmp_path):
    for source in ("hf:timm/x", "torchvision:x.pth", "weights.pth", "x.safetensors", str(tmp_path)):
        assert sources.is_source(source)
    for name in ("resnet50", "vit_base_patch16_224", "mobilenet_v2_1.0"):
        assert not sources.is_source(name)
