"""Vision Transformers of other programs, under timm's names: Google's (vit_jax and big_vision) and those
of Hugging Face's transformers."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_GOOGLE = (
    (r"Transformer\.encoderblock_(\d+)\.", r"blocks.\1."),
    (r"MultiHeadDotProductAttention_\d\.qkv\.", "attn.qkv."),
    (r"MultiHeadDotProductAttention_\d\.out\.", "attn.proj."),
    (r"(blocks\.\d+)\.LayerNorm_0\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.LayerNorm_[12]\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.MlpBlock_\d\.Dense_0\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.MlpBlock_\d\.Dense_1\.", r"\1.mlp.fc2."),
    (r"Transformer\.encoder_norm\.", "norm."),
    (r"(Transformer\.)?(posembed_input\.)?pos_embedding$", "pos_embed"),
    (r"\bembedding\.", "patch_embed.proj."),
    (r"\bcls$", "cls_token"),
)
_HUGGING_FACE = (
    (r"(\bvit\.)?encoder\.layer\.(\d+)\.", r"blocks.\2."),
    (r"(blocks\.\d+)\.attention\.attention\.", r"\1.attn."),
    (r"(blocks\.\d+)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(\bvit\.)?\blayernorm\.", "norm."),
    (r"(\bvit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(\bvit\.)?embeddings\.cls_token$", "cls_token"),
    (r"(\bvit\.)?embeddings\.position_embeddings$", "pos_embed"),
    (r"\bclassifier\.", "head."),
)
_QUERY = re.compile(r"(?P<module>.*\.)query\.(?P<leaf>weight|bias)")


def in_timms_names(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors under timm's names, if they are one of these programs'; else as they are.

    timm has queries, keys and values in one layer, and a position for the class token, which is
    zero in newer files of big_vision.

    Args:
        tensors: by the programs' names, in torch's layouts. Prefixes are kept.
    """
    for rules in (_GOOGLE, _HUGGING_FACE):
        if any(re.search(rules[0][0], key) for key in tensors):
            joined = _with_joined_attention(tensors)
            return _with_positions({_renamed(key, rules): value for key, value in joined.items()})
    return tensors


def _with_joined_attention(tensors: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(tensors)
    for key in tensors:
        if match := _QUERY.fullmatch(key):
            parts = [f"{match['module']}{part}.{match['leaf']}" for part in ("query", "key", "value")]
            if all(part in tensors for part in parts):
                values = [np.asarray(joined.pop(part)) for part in parts]
                joined[f"{match['module']}qkv.{match['leaf']}"] = np.concatenate(values)
    return joined


def _with_positions(tensors: dict[str, Any]) -> dict[str, Any]:
    """With a position of the class token, where there are only those of a square of patches."""
    for key, value in tensors.items():
        shape = np.shape(value)
        if key.endswith("pos_embed") and len(shape) == 3 and math.isqrt(shape[1]) ** 2 == shape[1]:
            token = f"{key.removesuffix('pos_embed')}cls_token"
            if token in tensors:
                tensors[key] = np.pad(np.asarray(value), ((0, 0), (1, 0), (0, 0)))
    return tensors


def _renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
