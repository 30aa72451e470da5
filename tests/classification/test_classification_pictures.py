"""What is drawn of a classifier's mistakes: which, and how they are counted."""

import numpy as np

from jaxnets.classification import pictures
from jaxnets.data import ArraySource, eval_batches


def test_the_surest_mistakes_are_shown_the_worst_first(monkeypatch, tmp_path):
    drawn = {}
    for name in ("plot_confusion", "plot_mistakes"):
        monkeypatch.setattr(
            pictures, name, lambda *args, name=name, **options: drawn.update({name: (args, options)})
        )
    rng = np.random.default_rng(0)
    count, classes = 200, 4
    labels = rng.integers(0, classes, count)
    scores = rng.random((count, classes))
    probabilities = scores / scores.sum(1, keepdims=True)
    images = np.zeros((count, 2, 2, 1), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    source = ArraySource(images, labels, "abcd")

    predictions = (  # an image is its own number
        (batch, probabilities[batch["image"][:, 0, 0, 0]]) for batch in eval_batches(source, 64)
    )
    pictures.draw_predictions(tmp_path, predictions, source.class_names)
    (matrix, names, _), _ = drawn["plot_confusion"]
    said = probabilities.argmax(1)
    wanted = np.zeros((classes, classes))
    for truth, other in zip(labels, said, strict=True):
        wanted[truth, other] += 1
    np.testing.assert_array_equal(matrix, wanted)
    assert names == tuple("abcd")

    (mistakes, _, _, title), _ = drawn["plot_mistakes"]
    wrong = np.flatnonzero(said != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1))][: pictures.WORST]
    assert [int(mistake.image[0, 0, 0]) for mistake in mistakes] == worst.tolist()
    assert [mistake.truth for mistake in mistakes] == labels[worst].tolist()
    assert [mistake.said for mistake in mistakes] == said[worst].tolist()
    assert title == f"{len(wrong)} of 200 images wrong, the 25 it was surest of"
