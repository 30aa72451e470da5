"""Trains Show and Tell on COCO by the recipe of its paper (Vinyals et al. 2014, section 4.3.1).

Command: python experiments/coco_show_and_tell.py COCO [RESNET.pth]
Result:  not run here: no COCO and no pretrained weights were at hand. The paper reports BLEU-4 of 27.7
         and CIDEr of 85.5 on COCO with GoogLeNet; its later version (arXiv:1609.06647) more.

COCO is a folder with annotations/captions_train2014.json, captions_val2014.json, train2014/ and
val2014/; RESNET.pth a torchvision state dict of resnet50, which needs torch to be read. SGD without
momentum at a constant rate, embeddings and states of 512, dropout, a backbone that stays as it is, so
that its features are computed once (0.7 GB of memory), words that come at least five times.
"""

import sys

import jax
import numpy as np
import optax

from jaxnets import data, training, weights
from jaxnets.captioning import (
    Captioning,
    CaptionSource,
    Vocabulary,
    cache_features,
    create_captioner,
    evaluate_captions,
    with_backbone,
)

EPOCHS, BATCH = 30, 128


if __name__ == "__main__":
    coco = data.load(f"captions:{sys.argv[1]}", size=224)
    captions = (c for index in range(len(coco.train)) for c in coco.train.captions(index))
    vocabulary = Vocabulary.build(captions, min_count=5)
    captioner = create_captioner("show_and_tell", "resnet50", vocabulary, features=512, dropout=0.5)
    task = Captioning(captioner, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), frozen=True)
    train, test = (CaptionSource(part, vocabulary, length=20) for part in (coco.train, coco.test))
    example = jax.tree.map(lambda leaf: np.asarray(leaf)[None], train[0])
    variables = jax.jit(task.init)(jax.random.key(0), example)
    if len(sys.argv) > 2:
        import torch

        state_dict = torch.load(sys.argv[2], weights_only=True)
        variables = with_backbone(variables, weights.from_torch("resnet50", state_dict))
    features = cache_features(task, variables, train, mean=True)
    state, _ = training.fit(
        task, features, optimizer=optax.sgd(0.1), epochs=EPOCHS, batch_size=BATCH, directory="runs/coco"
    )
    whole = {**variables, "params": state.variables["params"]}
    print(evaluate_captions([(task, whole)], test, width=20))
