"""Images of several labels, against NumPy, scikit-learn, and what the commands say."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

import jaxnets
from jaxnets import MultiLabel, cli, create_model, data, recipes, training
from jaxnets.classification.recipe import RECIPE, Config
from jaxnets.errors import InputError

K = 3
NAMES = ("one", "two", "zero")


def make_task(**options):
    return MultiLabel(create_model("mlp", num_classes=K, widths=(8,)), **options)


def make_batch(count=7):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, 4, 4, 1), dtype=np.uint8),
        "label": (rng.random((count, K)) < 0.4).astype(np.uint8),
        "weight": rng.choice([0.0, 1.0, 2.0], count).astype(np.float32),
    }


class Examples:
    """Noise with labels at random; one class is in no example, and one example cannot be read."""

    class_names = ("a", "b", "c")
    image_shape = (4, 4, 1)

    def __init__(self, count):
        self.batch = make_batch(count)
        self.batch["label"][:, 1] = 0
        self.batch["weight"] = np.ones(count, np.float32)
        self.batch["weight"][3] = 0

    def __len__(self):
        return len(self.batch["image"])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def drawn(task, batch):
    """Variables of the shapes that `init` gives, drawn without compiling it."""
    rng, shapes = np.random.default_rng(5), jax.eval_shape(task.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_sigmoid_cross_entropy_of_each_class_of_targets_that_may_be_mixed(mixed):
    def mix(key, images, targets):
        return images, 0.3 * targets + 0.7 * targets[::-1]

    task, batch = make_task(mix=mix if mixed else None), make_batch()
    variables, targets = drawn(task, batch), batch["label"].astype(np.float64)
    logits = np.asarray(task.predict(variables, batch), np.float64)

    def mean(targets):
        terms = np.logaddexp(0, logits) - targets * logits
        return (terms.mean(1) * batch["weight"]).sum() / batch["weight"].sum()

    wanted = mean(0.3 * targets + 0.7 * targets[::-1] if mixed else targets)
    assert abs(wanted - mean(1 - targets)) > 0.01
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        loss, (_, sums) = jax.jit(task.loss)(variables, batch, jax.random.key(1))
        measured = task.metrics(jnp.asarray(logits, jnp.float32), batch)["loss"].compute()
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert set(sums) == {"loss"}
    assert float(measured) == pytest.approx(mean(targets), rel=1e-5)


def test_map_over_a_whole_set_on_eight_devices_is_scikit_learns():
    assert jax.device_count() == 8
    task, source = make_task(), Examples(37)
    variables = drawn(task, source.batch)
    found = training.evaluate(task, variables, source, batch_size=16)
    scores, there = np.asarray(task.predict(variables, source.batch)), source.batch["weight"] > 0
    labels = source.batch["label"][there]
    wanted = [average_precision_score(labels[:, k], scores[there, k]) for k in (0, 2)]
    np.testing.assert_allclose(found["AP"], [wanted[0], np.nan, wanted[1]], rtol=1e-6)
    assert found["mAP"] == pytest.approx(np.mean(wanted), rel=1e-6)
    assert abs(wanted[0] - wanted[1]) > 1e-3  # or the mean would tell little


def test_what_is_for_one_label_is_refused():
    for options, words in (
        ({"loss_name": "hinge"}, "loss is hinge, which is for one label an image; several take bce"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "class_weights: it is for one label"),
        ({"label_smoothing": 0.1}, "label_smoothing belongs to cross_entropy"),
    ):
        with pytest.raises(InputError, match=words):
            make_task(**options)
    batch = make_batch()
    for label, words in (
        (batch["label"][:, 0], r"label has shape \(7,\); wanted \(7, 3\)"),
        (batch["label"] * 2, "label has 2; wanted 0 or 1"),
    ):
        with pytest.raises(InputError, match=words):
            make_task().check(batch | {"label": label})
    with pytest.raises(InputError, match="several labels, whose classes cannot be balanced"):
        data.class_balanced(Examples(9))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Pictures of none, one or two of three digits, side by side; a CSV file of them."""
    folder, digits, rng = tmp_path_factory.mktemp("digits"), load_digits(), np.random.default_rng(0)
    rows = []
    for number in range(100):
        labels = rng.permutation(3)[: rng.integers(0, 3)]
        pixels = np.zeros((8, 24))
        for label in labels:
            pick = rng.choice(np.flatnonzero(digits.target == label))
            pixels[:, 8 * label : 8 * label + 8] = digits.images[pick]
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((24, 24)).save(folder / f"{number}.png")
        named = ";".join(("zero", "one", "two")[label] for label in labels)
        rows.append((f"{number}.png", named, "train" if number < 80 else "test"))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "labels", "split"), *rows])
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    """A trained run."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    options = ["--model", "mlp", "--settings", "widths=[16]", "--image-size", "24", "--augment", "none"]
    options += ["--epochs", "8", "--learning-rate", "3e-3", "--batch-size", "16"]
    cli.main(["train", "--dataset", f"csv:{table}", *options, "--run-dir", str(directory)])
    return recipes.load(directory)


def probabilities(run, source):
    """Of all images of a source, by the net alone."""
    pixels = np.stack([source[index]["image"] for index in range(len(source))])
    logits = np.asarray(run.task.predict(run.variables, {"image": pixels}), np.float64)
    return 1 / (1 + np.exp(-logits))


def test_eval_prints_map_and_the_average_precision_of_each_class(run, table, capsys):
    source = run.held_out()
    assert run.config.loss == "bce"
    labels = np.stack([source[index]["label"] for index in range(len(source))])
    wanted = average_precision_score(labels, probabilities(run, source), average=None)
    assert wanted.mean() > 0.9  # it has learned
    cli.main(["eval", str(run.directory)])
    printed = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()[1:])
    assert printed["examples"] == "20"
    assert RECIPE.draw(run) == [run.directory / "precision_recall.png"]
    assert printed["mAP"] == f"{wanted.mean():.3f}"
    for name, value in zip(NAMES, wanted, strict=True):
        assert printed[f"AP {name}"] == f"{value:.3f}"


def test_predict_names_the_classes_above_a_half(run, table, capsys):
    source, wanted = run.held_out(), []
    for path, row in zip(source.paths, probabilities(run, source), strict=True):
        best = [k for k in np.argsort(-row) if row[k] > 0.5]
        said = ", ".join(f"{NAMES[k]} {row[k]:.1%}" for k in best) or "no class above 50%"
        wanted.append(f"{path}: {said}")
    cli.main(["predict", str(run.directory), *source.paths])
    assert capsys.readouterr().out.splitlines() == wanted
    assert {line.count("%") for line in wanted} == {1, 2}
    cli.main(["predict", str(run.directory), source.paths[0], "--top", "3"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)


def test_a_run_goes_on_and_on_other_labels_it_does_not(run, table, tmp_path, capsys):
    before = table.read_text()
    options = ["--model", "mlp", "--settings", "widths=[16]", "--image-size", "24", "--augment", "none"]
    options += ["--learning-rate", "3e-3", "--resume", "--run-dir", str(run.directory)]
    options += ["--dataset", f"csv:{table}", "--epochs", "8"]
    cli.main(["train", *options])
    table.write_text(before.replace("one", "two", 1))
    with pytest.raises(SystemExit):
        cli.main(["train", *options])
    table.write_text(before)
    assert "resume: the files in" in capsys.readouterr().err


def test_converted_weights_keep_the_probabilities_of_the_run(run, tmp_path, capsys):
    path = run.held_out().paths[0]
    cli.main(["predict", str(run.directory), path, "--top", "3"])
    wanted = capsys.readouterr().out
    cli.main(["convert", "mlp", str(run.directory), "-o", str(tmp_path / "model.safetensors")])
    capsys.readouterr()
    cli.main(["predict", str(tmp_path / "model.safetensors"), path, "--top", "3"])
    assert capsys.readouterr().out == wanted


def test_a_run_is_exported_with_its_probabilities(run, tmp_path):
    source = run.held_out()
    jaxnets.export_model(run.directory, tmp_path / "model.bin")
    program = jaxnets.load_exported(tmp_path / "model.bin")
    pixels = np.stack([source[index]["image"] for index in range(3)])
    np.testing.assert_allclose(program(pixels), probabilities(run, source)[:3], atol=1e-6)


def test_features_have_the_labels_of_their_files(run, table, tmp_path):
    found = jaxnets.extract_features(run.directory, batch_size=32)
    found.save(tmp_path / "features.csv")
    with open(table, newline="") as file:
        wanted = {row["file"]: set(row["labels"].split(";")) for row in csv.DictReader(file)}
    with open(tmp_path / "features.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"].rsplit("/", 1)[1]: set(row["labels"].split(";")) for row in rows} == wanted
    assert len(rows) == 100
    assert found.labels.shape == (100, K)


def test_weights_are_fine_tuned_with_a_new_head(run, table, tmp_path):
    text = table.read_text().replace("two", "second")
    table.with_name("renamed.csv").write_text(text)
    dataset = f"csv:{table.with_name('renamed.csv')}"
    config = Config(pretrained=str(run.directory), dataset=dataset).completed()
    found = RECIPE.prepare(config, RECIPE.load(config, None), None)
    assert isinstance(found.task, MultiLabel)
    assert "head new, for 3 classes in place of 3" in found.notes[-1]
    assert found.about["class_names"] == ("one", "second", "zero")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loss", "cross_entropy"], "loss is cross_entropy, which is for one label an image"),
        (["--balance", "over"], "balance is over, which is for one label an image"),
    ],
)
def test_options_that_are_for_one_label_are_refused(table, tmp_path, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--dataset", f"csv:{table}", *options, "--run-dir", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_several_runs_are_averaged_to_name_classes_and_measured_one_at_a_time(run, table, capsys):
    source, name = run.held_out(), str(run.directory)
    cli.main(["predict", name, name, source.paths[0]])
    twice = capsys.readouterr().out
    cli.main(["predict", name, source.paths[0]])
    assert capsys.readouterr().out == twice
    with pytest.raises(SystemExit):
        cli.main(["eval", name, name, "--dataset", f"folder:{table.parent}"])
    assert "measured one at a time" in capsys.readouterr().err
