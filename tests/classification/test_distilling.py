"""Distillation, against SciPy's divergence; teachers of other images and another order of classes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from scipy.stats import entropy

from jaxnets import Classification, cli, create_model, losses
from jaxnets.classification.distilling import Teacher
from jaxnets.errors import InputError
from jaxnets.weights import Preprocessing, Pretrained

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def loaded():
    """A perceptron of three classes for images of 8 x 8 pixels in RGB."""
    model = create_model("mlp", num_classes=3, widths=(5,))
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    images = Preprocessing(8, 8, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    return Pretrained(model, variables, images, NAMES, {}, origin="teacher.safetensors")


def test_the_loss_is_the_divergence_of_the_softened_scores():
    student, teacher = np.random.default_rng(0).normal(0, 3, (2, 7, 5)).astype(np.float32)
    for temperature in (1.0, 4.0):
        wanted, own = (softmax(scores / temperature, axis=-1) for scores in (teacher, student))
        found = losses.distillation(student, teacher, temperature)
        np.testing.assert_allclose(found, temperature**2 * entropy(wanted, own, axis=-1), rtol=1e-4)
        slope = jax.grad(lambda s, t=temperature: losses.distillation(s, teacher, t).sum())(student)
        np.testing.assert_allclose(slope, temperature * (own - wanted), rtol=1e-4, atol=1e-5)


def test_a_teacher_has_its_share_of_the_loss_of_every_weighted_image(loaded):
    teacher = Teacher(loaded, NAMES, weight=0.3, temperature=2.0)
    model = create_model("mlp", num_classes=3, widths=(8,))
    plain, taught = (Classification(model, teacher=one) for one in (None, teacher))
    alone = Classification(model, teacher=dataclasses.replace(teacher, weight=1.0))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
        "label": np.array([0, 2, 1, 1], np.int32),
        "weight": np.array([1, 0.5, 0, 2], np.float32),
    }
    variables = plain.init(jax.random.key(0), batch)
    hard, mixed, soft = (
        float(task.loss(variables, batch, jax.random.key(0))[0]) for task in (plain, taught, alone)
    )
    assert mixed == pytest.approx(0.7 * hard + 0.3 * soft, rel=1e-5)
    pixels = batch["image"] / 255
    theirs = loaded.model.apply(loaded.variables, (pixels - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4])
    own = plain.predict(variables, batch)
    values = 4 * entropy(softmax(theirs / 2, axis=-1), softmax(own / 2, axis=-1), axis=-1)
    assert soft == pytest.approx(np.average(values, weights=batch["weight"]), rel=1e-4)


def test_a_teacher_scores_other_images_in_the_students_order(loaded):
    gray = np.random.default_rng(0).random((2, 16, 16), np.float32)
    small = [np.asarray(Image.fromarray(image).resize((8, 8), Image.BILINEAR)) for image in gray]
    color = Teacher(loaded, NAMES).scores(np.repeat(np.stack(small)[..., None], 3, axis=-1))
    found = Teacher(loaded, ("c", "a", "b")).scores(gray[..., None])
    np.testing.assert_allclose(found, color[:, np.array([2, 0, 1])], rtol=1e-3, atol=1e-3)


def test_a_teacher_of_other_channels_order_scores_the_same_images(loaded):
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    other = dataclasses.replace(loaded.preprocessing, order="BGR")
    found = Teacher(dataclasses.replace(loaded, preprocessing=other), NAMES).scores(images)
    turned = Teacher(loaded, NAMES).scores(images[..., ::-1])  # mean and std are of the third channel
    np.testing.assert_allclose(found, turned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_names": ("a", "b")}, "has 3 classes, and the dataset has 2 that are not the same"),
        ({"weight": 0.0}, "teacher_weight is 0.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_what_cannot_be_is_refused(loaded, options, words):
    with pytest.raises(InputError, match=words):
        Teacher(loaded, **{"class_names": NAMES, **options})
    teacher = Teacher(loaded, NAMES)
    with pytest.raises(InputError, match="class weights"):
        Classification(create_model("mlp", 3), teacher=teacher, class_weights=(1.0, 2.0, 1.0))


@pytest.mark.slow
def test_a_run_teaches_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model", "mlp", "--settings", "widths=[8]", "--epochs", "1", "--strategy", "single"]
    cli.main(["train", *small, "--run-dir", "teacher"])
    cli.main(
        ["train", *small, "--run-dir", "student", "--teacher", "teacher", "--teacher-weight", "0.9"]
    )
    assert "test accuracy" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cli.main(["train", "--run-dir", "../student", "--resume", "--epochs", "2"])
    assert "resumed" in capsys.readouterr().out
    again = ["--teacher", "mlp=../teacher", "--run-dir", "another"]
    cli.main(["train", *small, *again])
    assert "test accuracy" in capsys.readouterr().out
