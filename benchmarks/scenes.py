"""How well captioners describe scenes whose pairs of color and digit they have never seen.

Command: python benchmarks/scenes.py [--seeds 0 1 2] [--names show_attend_tell show_and_tell]
Prints the table that is kept in benchmarks/scenes.md. For each captioner and seed it trains from
scratch, on one device, and measures free-running decoding (beam search of width 3) on 2,000 held-out
scenes, and the exact sentences on 2,000 new scenes whose pairs are known, to tell errors of reading
from the step to unseen pairs. It also measures how many captions a second beam search of width 5
writes.

A scene has two true sentences ("x above y" and "y below x"). CIDEr-D is the mean over references, so
that a perfect captioner, which says one of them, has 8.1 against both; against the nearest of them it
has 10. Both are in the table.
"""

import argparse
import time

import jax
import numpy as np
import optax
from heading import print_heading

from jaxnets import training
from jaxnets.captioning import (
    COLOR_WORDS,
    Captioning,
    CaptionSource,
    Vocabulary,
    Writer,
    create_captioner,
    write_captions,
)
from jaxnets.data.dataset import read_batch
from jaxnets.data.scenes import DIGITS, SceneSource
from jaxnets.metrics import text

BACKBONE = {"block": "basic", "depths": (1, 1), "widths": (48, 128), "stem_width": 32}
DECODERS = {
    "show_attend_tell": {"features": 192, "embedding": 96, "attention_features": 96, "dropout": 0.1},
    "show_and_tell": {"features": 192, "dropout": 0.1},
    "lrcn": {"features": 192, "dropout": 0.1},
}
SCENES, EPOCHS, BATCH, LENGTH, GRID = 200_000, 1, 64, 14, 8


def train(name: str, seed: int, scenes: int, epochs: int) -> tuple[Captioning, dict, Vocabulary, tuple]:
    """Trains a captioner; returns it with the wall-clock and the CPU seconds that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    source = SceneSource("train", count=scenes)
    vocabulary = Vocabulary.build(c for i in range(500) for c in source.captions(i))
    captioner = create_captioner(
        name, "resnetv2_50", vocabulary, backbone_settings=BACKBONE, **DECODERS[name]
    )
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
    steps = epochs * (scenes // BATCH)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(200, steps // 5), steps)
    optimizer = training.create_optimizer("adamw", schedule, weight_decay=0.1, clip_norm=5.0)
    state, _ = training.fit(
        task,
        CaptionSource(source, vocabulary, length=LENGTH, keep=epochs > 1),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        parallel=training.DataParallel.create("single"),
        progress=False,
    )
    variables = jax.block_until_ready(state.variables)
    return task, variables, vocabulary, (time.perf_counter() - wall, time.process_time() - cpu)


def score(task: Captioning, variables: dict, held_out: CaptionSource) -> dict[str, float]:
    """Scores against all true sentences, and against the nearest of them."""
    written = [sentence.split() for sentence in write_captions([(task, variables)], held_out, width=3)]
    references = [[s.split() for s in held_out.references(i)] for i in range(len(held_out))]
    nearest = [
        [max(own, key=lambda reference, w=w: text.rouge_l([w], [[reference]])[0])]
        for w, own in zip(written, references, strict=True)
    ]
    found = text.scores(written, references)
    return {**found, "nearest": float(np.mean(text.cider_d(written, nearest)))}


def attention_in_box(task: Captioning, variables: dict, held_out: CaptionSource) -> np.ndarray:
    """Attention mass in the box of the object that words name, over the box's share of the image.

    For the size, the color and the digit of each object in the first true sentence, [3]; boxes are
    laid over the grid of places by area.
    """

    @jax.jit
    def look(variables, batch):
        features = task.encode(variables, batch)
        return task.attention(variables, features, batch["captions"][:, 0])

    ratios = []
    numbers = {held_out.vocabulary.words.index(word) for word in DIGITS}
    for start in range(0, len(held_out), 100):
        indices = np.arange(start, start + 100)
        batch = read_batch(held_out, indices)
        maps = np.asarray(look(variables, {name: batch[name] for name in ("image", "captions")}))
        for index, tokens, mass in zip(indices, batch["captions"][:, 0], maps, strict=True):
            boxes = held_out.source.scene(int(index)).boxes
            times = [t for t, token in enumerate(tokens) if int(token) in numbers]
            for t, box in zip(times, boxes, strict=True):  # the first sentence is in their order
                inside = coverage(box, held_out.image_shape[0])
                named = mass[t - 2 : t + 1].reshape(-1, GRID, GRID)
                ratios.append((named * inside).sum((1, 2)) / inside.mean())
    return np.mean(ratios, axis=0)


def coverage(box: np.ndarray, side: int) -> np.ndarray:
    """How much of each place of the grid the box covers, [GRID, GRID] in 0 to 1."""
    edges = np.linspace(0, side, GRID + 1)
    across, along = (
        np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * GRID / side
        for low, high in ((box[0], box[2]), (box[1], box[3]))
    )
    return along[:, None] * across


def captions_per_second(task: Captioning, variables: dict, held_out: CaptionSource) -> float:
    """Beam search of width 5 over batches of 64 images, the backbone included; median of five."""
    writer = Writer([(task, variables)], width=5, length=LENGTH)
    write = jax.jit(writer.predict)
    batch = {"image": read_batch(held_out, np.arange(64))["image"]}
    jax.block_until_ready(write(writer.variables, batch))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(write(writer.variables, batch))
        seconds.append(time.perf_counter() - start)
    return 64 / float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", default=["show_attend_tell", "show_and_tell"])
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    print_heading(
        "Captions of scenes with unseen pairs of color and digit",
        "`python benchmarks/scenes.py`, measured",
    )
    print(f"- {options.scenes:,} training scenes, epochs: {options.epochs}, batch {BATCH}\n")
    print(
        "| captioner | seed | exact sentence | exact, known pairs | CIDEr-D, nearest (of 10) | "
        "CIDEr-D, both (of 8.1) | BLEU-4 | attention in box / chance (size, color, digit word) | "
        "captions/s, beam 5 | wall s | CPU s |"
    )
    print("|---" * 11 + "|")
    for name in options.names:
        for seed in options.seeds:
            task, variables, vocabulary, (wall, cpu) = train(name, seed, options.scenes, options.epochs)
            held_out, known = (
                CaptionSource(SceneSource(split), vocabulary, length=LENGTH, keep=True)
                for split in ("test", "seen")
            )
            found = score(task, variables, held_out)
            exact_known = score(task, variables, known)["exact"]
            looks = ""
            if name == "show_attend_tell":
                words = attention_in_box(task, variables, held_out)
                looks = f"{words.mean():.1f} ({', '.join(f'{word:.1f}' for word in words)})"
            rate = captions_per_second(task, variables, held_out)
            print(
                f"| {name} | {seed} | {found['exact']:.1%} | {exact_known:.1%} | "
                f"{found['nearest']:.2f} | {found['cider_d']:.2f} | {found['bleu4']:.3f} | {looks} | "
                f"{rate:.0f} | {wall:.0f} | {cpu:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
