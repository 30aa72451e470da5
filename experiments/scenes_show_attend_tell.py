"""Trains Show, Attend and Tell on scenes, from scratch, and describes held-out ones.

Command: python experiments/scenes_show_attend_tell.py
Result:  benchmarks/scenes.md has the scores and the time; this prints sentences and draws looked.png
"""

import optax

from jaxnets import training
from jaxnets.captioning import (
    COLOR_WORDS,
    Captioning,
    CaptionSource,
    Vocabulary,
    create_captioner,
    evaluate_captions,
    write_captions,
)
from jaxnets.data.scenes import SceneSource
from jaxnets.explain import plot_attention

BATCH, SCENES = 64, 200_000

if __name__ == "__main__":
    scenes, unseen = SceneSource("train", count=SCENES), SceneSource("test", count=500)
    vocabulary = Vocabulary.build(c for index in range(500) for c in scenes.captions(index))
    captioner = create_captioner(
        "show_attend_tell",
        "resnetv2_50",
        vocabulary,
        backbone_settings={"block": "basic", "depths": (1, 1), "widths": (48, 128), "stem_width": 32},
        features=192,
        embedding=96,
        attention_features=96,
        dropout=0.1,
    )
    # Most of a scene is background, so the wish to look everywhere is weak. With one sentence to learn
    # it is known which digit comes first; noise among the words makes it read the digits, and mixed
    # colors keep what it reads apart from colors.
    task = Captioning(
        captioner,
        mean=(0.25,),
        std=(0.25,),
        attention_penalty=0.01,
        first_sentence=True,
        word_noise=0.5,
        recolor=0.5,
        color_words=vocabulary.numbers(COLOR_WORDS),
    )
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 200, SCENES // BATCH)
    state, _ = training.fit(
        task,
        CaptionSource(scenes, vocabulary, length=14),
        test=(held_out := CaptionSource(unseen, vocabulary, length=14, keep=True)),
        optimizer=training.create_optimizer("adamw", rate, weight_decay=0.1, clip_norm=5.0),
        epochs=1,
        batch_size=BATCH,
        monitor="test_exact",
    )
    members = [(task, state.variables)]
    print(evaluate_captions(members, held_out, width=3))
    for sentence, index in zip(write_captions(members, held_out, width=3)[:8], range(8), strict=True):
        print(f"{sentence}   (true: {held_out.references(index)[0]})")
    example = held_out[0]
    features = task.encode(state.variables, {"image": example["image"][None]})
    looks = task.attention(state.variables, features, example["captions"][None, 0])[0]
    words = held_out.references(0)[0].split()
    plot_attention(example["image"], words, looks[: len(words)].reshape(-1, 8, 8), "looked.png")
