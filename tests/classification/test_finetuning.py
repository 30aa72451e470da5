"""Fine-tuning from the command line: the weights, their images, a head, the README's Python lines."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import jaxnets
from jaxnets import cli, data, training, weights
from jaxnets.classification.recipe import RECIPE, Config
from jaxnets.data import augmentation
from jaxnets.models import create_model
from jaxnets.runs.fitting import load_run
from jaxnets.training import Checkpointer
from jaxnets.weights import files

IMAGES = weights.Preprocessing(40, 32, "bicubic", (0.3,), (0.25,))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def lenet():
    """LeNet-5 for the digits 0 to 2, with weights."""
    model = create_model("lenet5", num_classes=3)
    variables = model.init(jax.random.key(3), jnp.zeros((1, 32, 32, 1)))
    names = ("zero", "one", "two")
    return weights.Pretrained(model, jax.tree.map(np.asarray, variables), IMAGES, names, {}, "a net")


@pytest.fixture(scope="module")
def home(tmp_path_factory, lenet):
    """A folder with the weights, and pictures of three digits under other names than theirs."""
    root = tmp_path_factory.mktemp("home")
    weights.save(root / "net.safetensors", lenet)
    digits = load_digits()
    for label, name in enumerate(("ichi", "ni", "san")):
        (root / "pictures" / name).mkdir(parents=True)
        for k in np.flatnonzero(digits.target == label)[:20]:
            picture = Image.fromarray((digits.images[k] * 15).astype(np.uint8))
            picture.resize((48, 40)).save(root / "pictures" / name / f"{k}.png")
    return root


def final(directory):
    return Checkpointer(Path(directory) / "checkpoints", read_only=True).restore_variables()


@pytest.mark.slow
def test_the_command_equals_the_python_lines_bit_for_bit(home, capsys):
    pictures, net = f"folder:{home / 'pictures'}", str(home / "net.safetensors")
    cli.main(["train", "--pretrained", net, "--dataset", pictures, "--epochs", "2", "--batch-size", "16",
              "--train", "conv2", "--layer-decay", "0.7", "--run-dir", "run"])  # fmt: skip
    printed = capsys.readouterr().out
    assert "head new, for 3 classes in place of 3" in printed

    digits = data.load(pictures, size=32, channels=1, interpolation="bicubic")
    model, variables = jaxnets.load_pretrained(net, num_classes=3, new_head=True)
    images = weights.preprocessing(net)
    augment = augmentation.by_name(["digits"])
    task = jaxnets.Classification(model, images.mean, images.std, augment=augment)
    steps = 2 * data.steps_per_epoch(digits.train, 16)
    schedule = training.create_schedule("cosine", 1e-3, steps, warmup_steps=round(0.2 * steps / 2))
    optimizer = training.create_optimizer("adamw", schedule, weight_decay=0.05)
    optimizer = optax.chain(optimizer, weights.layerwise_decay(model, 0.7))
    frozen = weights.freeze_mask(model, "conv2")
    optimizer = optax.selective_transform(optimizer, freeze_mask=frozen)
    state, _ = training.fit(
        task, digits.train, test=digits.test, optimizer=optimizer, variables=variables, epochs=2,
        batch_size=16, progress=False,
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, state.variables, final("run"))
    before, after = variables["params"]["backbone"], state.params["backbone"]
    np.testing.assert_array_equal(before["conv1"]["kernel"], after["conv1"]["kernel"])
    assert not np.array_equal(before["conv2"]["kernel"], after["conv2"]["kernel"])

    # The run needs neither the weights nor their file any more.
    moved = shutil.move("run", "other")
    assert load_run(RECIPE, moved).evaluate()["loss"] > 0
    cli.main(["train", "--resume", "--run-dir", moved, "--epochs", "3"])
    assert "after 3 epochs" in capsys.readouterr().out
    cli.main(["train", "--pretrained", moved, "--dataset", pictures, "--epochs", "1", "--augment",
              "--batch-size", "16", "--run-dir", "again"])  # fmt: skip
    assert "head kept, for the classes of the weights" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_over_from_the_weights(home, lenet):
    pictures, net = f"folder:{home / 'pictures'}", str(home / "net.safetensors")
    options = ["--epochs", "1", "--optimizer", "sgd", "--learning-rate", "1e-9"]
    cli.main(["train", "--pretrained", net, "--dataset", pictures, "--run-dir", "run", *options])
    whole = final("run")
    shutil.rmtree("run/checkpoints")  # as if killed within the first epoch
    Path("run/checkpoints").mkdir()
    cli.main(["train", "--resume", "--run-dir=run"])
    jax.tree.map(np.testing.assert_array_equal, whole, final("run"))
    kernel = lenet.variables["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_allclose(whole["params"]["backbone"]["conv1"]["kernel"], kernel, atol=1e-5)


@pytest.mark.slow
def test_a_perceptron_of_another_image_size_goes_through_a_file(home):
    pictures = f"folder:{home / 'pictures'}"
    small = ["--model", "mlp", "--settings", "widths=[4]", "--image-size", "8", "--epochs", "1"]
    cli.main(["train", "--dataset", pictures, *small, "--run-dir", "run"])
    cli.main(["convert", "mlp", "run", "-o", "mlp.safetensors"])
    _, variables = jaxnets.load_pretrained("mlp.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, final("run"))


def prepared(config, class_names, shape=(32, 32, 1)):
    source = data.ArraySource(np.zeros((8, *shape), np.uint8), [0] * 8, class_names)
    return RECIPE.prepare(
        config.completed(), data.Dataset("zeros", source, source, tuple(class_names)), None
    )


def test_the_head_is_kept_for_the_classes_of_the_weights_alone(home, lenet):
    config = Config(pretrained=str(home / "net.safetensors"))
    kept = prepared(config, lenet.class_names)
    jax.tree.map(np.testing.assert_array_equal, kept.variables, lenet.variables)
    assert "head kept" in kept.notes[0]
    for names in (("two", "one", "zero"), ("a", "b", "c")):  # as many, but others, or in another order
        new = prepared(config, names)
        assert "head new, for 3 classes in place of 3" in new.notes[0]
        ours, theirs = new.variables["params"], lenet.variables["params"]
        assert not np.array_equal(ours["head"]["fc3"]["kernel"], theirs["head"]["fc3"]["kernel"])
        np.testing.assert_array_equal(ours["head"]["fc2"]["kernel"], theirs["head"]["fc2"]["kernel"])
        assert (new.task.mean, new.task.std) == (IMAGES.mean, IMAGES.std)
    assert prepared(config, tuple("abcde")).task.model.num_classes == 5


def test_a_run_begins_with_weights_that_have_no_head(tmp_path):
    settings = {"depths": (1,)}
    model = create_model("resnet18", num_classes=2, **settings)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    state = weights.to_torch("resnet18", variables, num_classes=2, **settings)
    state = {f"module.{key}": value for key, value in state.items() if not key.startswith("fc.")}
    files.write_safetensors(tmp_path / "backbone.safetensors", state)
    source, heads = f"resnet18={tmp_path / 'backbone.safetensors'}", []
    for seed, names in ((0, ("a", "b")), (1, ("a", "b")), (1, tuple(map(str, range(1000))))):
        config = Config(pretrained=source, settings=("depths=[1]",), seed=seed)
        begun = prepared(config, names, (32, 32, 3))
        assert begun.notes[0].endswith(f"head new, for {len(names)} classes")
        jax.tree.map(
            np.testing.assert_array_equal,
            begun.variables["params"]["backbone"],
            variables["params"]["backbone"],
        )
        heads.append(begun.variables["params"]["head"]["fc"]["kernel"])
    assert (heads[0] != heads[1]).all()
    assert [head.shape[1] for head in heads] == [2, 2, 1000]


def test_weights_for_bgr_see_the_same_in_rgb(tmp_path):
    model = create_model("resnet18", num_classes=2, depths=(1,))
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    images = weights.Preprocessing(32, 32, "bilinear", (0.2, 0.4, 0.6), (0.1, 0.2, 0.3), "BGR")
    settings = {"depths": [1]}
    net = weights.Pretrained(model, variables, images, ("a", "b"), settings, "a net")
    weights.save(tmp_path / "bgr.safetensors", net)
    found = prepared(Config(pretrained=str(tmp_path / "bgr.safetensors")), ("a", "b"), (32, 32, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    scores = found.task.predict(found.variables, {"image": pixels})
    wanted = model.apply(variables, images.normalize(pixels))
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "size"), [((), 224), (("small_input=true",), 32), (("depths=[1]",), 224)]
)
def test_a_folder_is_read_in_the_size_that_the_model_then_wants(home, settings, size):
    config = Config(model="resnet18", settings=settings, dataset=f"folder:{home / 'pictures'}")
    assert RECIPE.load(config, None).image_shape == (size, size, 3)


def test_what_does_not_fit_the_weights_is_said(home, capsys):
    net = str(home / "net.safetensors")
    for options, words in (
        (["--pretrained", net, "--train", "conv9"], "unknown part of lenet5 'conv9'"),
        (["--pretrained", net, "--layer-decay", "2"], "decay is 2"),
        (
            ["--pretrained", net, "--layer-decay", "0.7", "--optimizer", "sam"],
            "layer_decay: sam goes back",
        ),
        (["--pretrained", net, "--model", "mlp"], "holds weights of lenet5, not of mlp"),
        (["--pretrained", "lenet5"], "there are no public weights for lenet5"),
        (["--pretrained", net, "--settings", "num_classes=7"], "num_classes is decided by the run"),
        (["--train", "head"], "give --pretrained too"),
        (["--pretrained", "nowhere.safetensors"], "nowhere.safetensors"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *options])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err


def test_a_picture_is_named_by_the_mean_of_two_models(home, lenet, capsys):
    other = dataclasses.replace(lenet, variables=jax.tree.map(lambda a: -a, lenet.variables))
    weights.save("other.safetensors", other)
    picture = next((home / "pictures" / "ni").iterdir())
    cli.main(["predict", str(home / "net.safetensors"), "other.safetensors", str(picture), "--top", "3"])
    printed = capsys.readouterr().out
    image = IMAGES(picture)[None]
    both = [jax.nn.softmax(lenet.model.apply(net.variables, image))[0] for net in (lenet, other)]
    mean = np.mean(both, axis=0)
    for name, probability in zip(lenet.class_names, mean, strict=True):
        assert f"{name} {probability:.1%}" in printed
