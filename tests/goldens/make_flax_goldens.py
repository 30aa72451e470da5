"""Makes tests/goldens/data/flax.json: what Google's and Hugging Face's programs in Flax answer.

In an environment of its own, with the sources of github.com/google-research/vision_transformer and of
github.com/google-research/big_vision (its files in a folder of that name) in two folders:

    pip install transformers==4.49.0 torch==2.14.1 flax scipy absl-py
    python tests/goldens/make_flax_goldens.py VISION_TRANSFORMER PARENT_OF_BIG_VISION
"""

import json
import sys
import types
from pathlib import Path

import draw
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flax_references import CLASSES, IMAGES, RESNET, SIZE, VIT, variables
from transformers import (
    FlaxResNetForImageClassification,
    FlaxViTForImageClassification,
    ResNetConfig,
    ViTConfig,
)


def google(module):
    shown = jnp.zeros((1, SIZE, SIZE, 3))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), shown, train=False))["params"]

    def logits(drawn, images):
        scores = module.apply({"params": drawn}, images, train=False)
        return scores[0] if isinstance(scores, tuple) else scores

    return shapes, logits


def hugging_face(model):
    def logits(drawn, images):
        return model(images.transpose(0, 3, 1, 2), params=drawn).logits

    return model.params, logits


def vit_jax(**settings):
    from vit_jax.models_vit import VisionTransformer

    return google(
        VisionTransformer(
            num_classes=CLASSES,
            patches=types.SimpleNamespace(size=(16, 16)),
            transformer={"num_layers": VIT["depth"], "mlp_dim": 128, "num_heads": VIT["heads"]},
            hidden_size=VIT["width"],
            **settings,
        )
    )


def big_vision():
    # Its utilities need TensorFlow, and the model none of them.
    sys.modules["big_vision.utils"] = types.ModuleType("big_vision.utils")
    from big_vision.models import vit

    return google(
        vit.Model(
            num_classes=CLASSES,
            width=VIT["width"],
            depth=VIT["depth"],
            num_heads=VIT["heads"],
            pool_type="tok",
        )
    )


def transformers_vit():
    config = ViTConfig(
        hidden_size=VIT["width"],
        num_hidden_layers=VIT["depth"],
        num_attention_heads=VIT["heads"],
        intermediate_size=128,
        image_size=SIZE,
        num_labels=CLASSES,
    )
    return hugging_face(FlaxViTForImageClassification(config))


def transformers_resnet():
    config = ResNetConfig(hidden_sizes=[256, 512], depths=list(RESNET["depths"]), num_labels=CLASSES)
    return hugging_face(FlaxResNetForImageClassification(config))


def main():
    sys.path += sys.argv[1:]
    images = draw.images(IMAGES, SIZE)
    found = {}
    for make in (vit_jax, big_vision, transformers_vit, transformers_resnet):
        tree, logits = make()
        shapes = {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
        drawn = unflatten_dict(variables(shapes), sep="/")
        answers = [np.asarray(logits(drawn, images)) for images in (images, images[::-1])]
        np.testing.assert_allclose(answers[0], answers[1][::-1], rtol=1e-4, atol=1e-5)
        print(make.__name__, answers[0].tolist())
        found[make.__name__] = {"shapes": shapes, "logits": answers[0].astype(float).tolist()}
    path = Path(__file__).parent / "data" / "flax.json"
    path.write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
