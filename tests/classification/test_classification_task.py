"""The task of the zoo's classifiers, against float64 NumPy on the model's own scores."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from jaxnets import Classification, create_model, metrics
from jaxnets.classification.task import LOSSES
from jaxnets.data.augmentation import on_image
from jaxnets.errors import InputError
from jaxnets.layers import BatchNorm, LinearHead
from jaxnets.models import Classifier

K = 3
KEY = jax.random.key(7)
CLASS_WEIGHTS = (0.5, 1.0, 2.5)
EVERY_LOSS = pytest.mark.parametrize(
    ("loss_name", "class_weights"),
    [("cross_entropy", None), *((loss_name, CLASS_WEIGHTS) for loss_name in LOSSES)],
)


def make_task(dropout=0.0, **options):
    """A perceptron with 8 hidden units and three classes."""
    return Classification(create_model("mlp", num_classes=K, widths=(8,), dropout=dropout), **options)


def make_batch(count=6, seed=0, shape=(4, 4, 1), num_classes=K):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (count, *shape), dtype=np.uint8),
        "label": rng.integers(0, num_classes, count).astype(np.int32),
        "weight": rng.choice([0.5, 1.0, 2.0], count).astype(np.float32),
    }


def pad(batch, count, seed=1):
    """More rows of weight 0, and not blank ones: they must not count whatever they hold."""
    more = make_batch(count, seed, batch["image"].shape[1:])
    more["weight"][:] = 0
    return {name: np.concatenate([batch[name], more[name]]) for name in batch}


def start(task, batch):
    """Variables of the shapes that `init` gives, drawn without compiling it."""
    rng = np.random.default_rng(5)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 9
        value = rng.normal(0, fan_in**-0.5, leaf.shape)
        return jnp.asarray(1 + value**2 if path[-1].key == "var" else value, jnp.float32)

    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture
def batch():
    return make_batch()


def loss_and_gradient(task, variables, batch, key=KEY):
    def loss(params):
        return task.loss({**variables, "params": params}, batch, key)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def predict(task, variables, batch):
    return jax.jit(task.predict)(variables, batch)


def measure(task, outputs, batch):
    return jax.jit(task.metrics)(outputs, batch)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def reference_losses(logits, targets, loss_name="cross_entropy", class_weights=None, smoothing=0.0):
    """Loss and weight of each example: class weights weigh the terms, and the mean divides by them."""
    logits = np.asarray(logits, np.float64)
    targets = np.asarray(targets, np.float64)
    weights = np.ones(targets.shape[1]) if class_weights is None else np.array(class_weights)
    if loss_name == "cross_entropy":
        shifted = logits - logits.max(-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
        return -(weights * smooth * log_p).sum(-1), targets @ weights
    if loss_name == "hinge":
        right = (targets * logits).sum(-1, keepdims=True)
        values = ((1 - targets) * np.maximum(0, logits - right + 1)).sum(-1)
    elif loss_name == "mse":
        values = ((logits - targets) ** 2).mean(-1)
    else:
        p = 1 / (1 + np.exp(-logits))
        values = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(-1)
    return values * (targets @ weights), targets @ weights


def reference_mean(logits, targets, weights, *args, **options):
    values, shares = reference_losses(logits, targets, *args, **options)
    return (values * weights).sum() / (shares * weights).sum()


class TinyBackbone(nn.Module):
    """Two dense layers over all pixels, the first one with batch normalization."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), 1, 1, -1)
        x = nn.Dense(6, name="fc1")(x)
        first = nn.relu(BatchNorm(use_running_average=not train, name="bn1")(x))
        second = nn.relu(nn.Dense(5, name="fc2")(first))
        return {"fc1": first, "fc2": second}


def make_deep_task(auxiliary=(), **options):
    """A net with batch statistics and auxiliary heads on the named feature maps."""
    model = Classifier(
        backbone=TinyBackbone(),
        head=LinearHead(K),
        num_classes=K,
        input_size=(4, 4, 1),
        auxiliary={name: LinearHead(K) for name in auxiliary},
    )
    return Classification(model, **options)


# --- The weighted mean ---


@EVERY_LOSS
def test_the_loss_is_the_weighted_mean_of_its_formula(batch, loss_name, class_weights):
    task = make_task(loss_name=loss_name, class_weights=class_weights)
    variables = start(task, batch)
    logits = predict(task, variables, batch)
    targets, weights = np.eye(K)[batch["label"]], batch["weight"]
    wanted = reference_mean(logits, targets, weights, loss_name, class_weights)
    loss, (_, sums) = jax.jit(task.loss)(variables, batch, KEY)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    shown = metrics.compute(sums)
    assert shown["loss"] == pytest.approx(wanted, rel=1e-5)
    # Parts are joined by this weight, that of the classes included.
    share = np.ones(K) if class_weights is None else np.array(class_weights)
    total = (weights * share[batch["label"]]).sum()
    assert float(sums["loss"].weight) == pytest.approx(total, rel=1e-6)
    # The accuracy knows nothing of class weights.
    right = np.argmax(logits, -1) == batch["label"]
    assert shown["top1"] == pytest.approx(np.average(right, weights=weights), rel=1e-6)


@EVERY_LOSS
def test_padding_changes_neither_loss_nor_gradient_nor_metrics(batch, loss_name, class_weights):
    task = make_task(loss_name=loss_name, class_weights=class_weights)
    variables, padded = start(task, batch), pad(batch, 4)
    assert_close(loss_and_gradient(task, variables, padded), loss_and_gradient(task, variables, batch))
    assert_close(
        measure(task, predict(task, variables, padded), padded),
        measure(task, predict(task, variables, batch), batch),
    )


def test_padding_changes_nothing_for_lenet5():
    task = Classification(create_model("lenet5"))
    batch = make_batch(3, shape=(32, 32, 1), num_classes=10)
    variables = start(task, batch)
    found, wanted = (loss_and_gradient(task, variables, b) for b in (pad(batch, 2), batch))
    assert_close(found, wanted)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted[1])) > 1e-2


def test_a_padded_example_may_predict_nan(batch):
    task = make_task()
    outputs = np.array(predict(task, start(task, batch), batch))
    clean = measure(task, outputs, batch)
    outputs[2], batch["weight"][2] = np.nan, 0
    sums = measure(task, outputs, batch)
    kept = np.arange(6) != 2
    wanted = {name: leaf[kept] for name, leaf in batch.items()}
    assert_close(sums, measure(task, outputs[kept], wanted))
    assert float(clean["loss"].weight) > float(sums["loss"].weight)


def test_a_batch_of_nothing_but_padding_has_no_loss_and_no_gradient(batch):
    task = make_task(class_weights=CLASS_WEIGHTS, label_smoothing=0.1)
    batch["weight"][:] = 0
    variables = start(task, batch)
    (loss, (_, sums)), gradient = loss_and_gradient(task, variables, batch)
    assert float(loss) == 0
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))
    assert float(sums["loss"].total) == float(sums["loss"].weight) == 0
    measured = metrics.compute(measure(task, predict(task, variables, batch), batch))
    assert not measured["confusion"].any()
    assert np.isnan(measured["loss"])  # a mean over nothing


def test_without_weights_every_example_counts_one(batch):
    task = make_task()
    variables = start(task, batch)
    batch["weight"][:] = 1
    unweighted = {name: batch[name] for name in ("image", "label")}
    assert_close(
        loss_and_gradient(task, variables, unweighted), loss_and_gradient(task, variables, batch)
    )
    outputs = predict(task, variables, batch)
    assert_close(measure(task, outputs, unweighted), measure(task, outputs, batch))


# --- Smoothing, mixing, augmentation: in training only ---


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_labels_are_smoothed_in_training_and_not_in_evaluation(batch, class_weights):
    task = make_task(label_smoothing=0.2, class_weights=class_weights)
    variables = start(task, batch)
    logits = predict(task, variables, batch)
    args = (logits, np.eye(K)[batch["label"]], batch["weight"], "cross_entropy", class_weights)
    loss, _ = jax.jit(task.loss)(variables, batch, KEY)
    assert float(loss) == pytest.approx(reference_mean(*args, smoothing=0.2), rel=1e-5)
    shown = metrics.compute(measure(task, logits, batch))
    assert shown["loss"] == pytest.approx(reference_mean(*args), rel=1e-5)
    assert shown["loss"] != pytest.approx(float(loss), rel=1e-3)


@on_image
def noise(key, image):
    """An augmentation that leaves nothing of the image but what was drawn."""
    return jnp.full_like(image, jax.random.uniform(key))


def test_every_image_is_augmented_with_a_key_of_its_own_and_reproducibly(batch):
    seen = []

    def spy(key, images, targets):
        # Split as for the images, a key shared with them would show.
        mixed = jax.vmap(jax.random.uniform)(jax.random.split(key, len(images)))
        seen.append({*np.asarray(mixed).tolist(), *np.asarray(images[:, 0, 0, 0]).tolist()})
        return images, targets

    task = make_task(augment=noise, mix=spy)
    variables = start(task, batch)
    for key in (KEY, KEY, jax.random.key(8)):
        task.loss(variables, batch, key)
    first, again, other = seen
    assert len(first) == 12
    assert again == first
    assert not first & other


def test_augmentations_are_given_single_images_of_0_to_1(batch):
    shapes = []

    def augment(key, image):
        shapes.append(image.shape)
        return image / 2

    def spy(key, images, targets):
        np.testing.assert_allclose(images, batch["image"] / 510.0, rtol=1e-6)
        np.testing.assert_array_equal(targets, np.eye(K)[batch["label"]])
        shapes.append(images.shape)
        return images, targets

    task = make_task(augment=on_image(augment), mix=spy, mean=(0.3,), std=(0.2,))
    variables = start(task, batch)
    loss, _ = task.loss(variables, batch, KEY)
    assert shapes == [(4, 4, 1), (6, 4, 4, 1)]
    # They come before the normalization.
    halved = {**batch, "image": (batch["image"] / 510).astype(np.float32)}
    plain = make_task(mean=(0.3,), std=(0.2,))
    assert float(loss) == pytest.approx(float(plain.loss(variables, halved, KEY)[0]), rel=1e-6)


@pytest.mark.parametrize("loss_name", LOSSES)
def test_mixed_targets_are_what_the_loss_compares_with(batch, loss_name):
    soft = np.random.default_rng(3).dirichlet(np.ones(K), 6).astype(np.float32)
    task = make_task(
        loss_name=loss_name,
        class_weights=CLASS_WEIGHTS,
        mix=lambda key, images, targets: (images[::-1], soft),
    )
    variables = start(task, batch)
    loss, (_, sums) = task.loss(variables, batch, KEY)
    logits = predict(task, variables, {**batch, "image": batch["image"][::-1]})
    wanted = reference_mean(logits, soft, batch["weight"], loss_name, CLASS_WEIGHTS)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    # The accuracy is that against the labels.
    right = np.argmax(logits, -1) == batch["label"]
    assert float(sums["top1"].total) == pytest.approx((right * batch["weight"]).sum())


def test_evaluation_neither_augments_nor_mixes_nor_drops(batch):
    def never(*_):
        raise AssertionError("called in evaluation")

    task = make_task(augment=never, mix=never, dropout=0.5)
    plain = make_task()
    variables = start(task, batch)
    outputs = predict(task, variables, batch)
    np.testing.assert_array_equal(outputs, predict(plain, variables, batch))
    assert_close(measure(task, outputs, batch), measure(plain, outputs, batch))


def test_dropout_is_keyed(batch):
    task = make_task(dropout=0.5)
    variables = start(task, batch)
    loss = jax.jit(lambda key: task.loss(variables, batch, key)[0])
    values = [float(loss(jax.random.key(seed))) for seed in (0, 0, 1, 2)]
    assert values[0] == values[1]
    assert len(set(values)) == 3


def test_the_loss_draws_the_same_under_jit(batch):
    task = make_task(augment=noise, dropout=0.5)
    variables = start(task, batch)
    assert float(jax.jit(task.loss)(variables, batch, KEY)[0]) == pytest.approx(
        float(task.loss(variables, batch, KEY)[0]), rel=1e-6
    )


# --- Images ---


def test_bytes_and_floats_of_0_to_1_agree(batch):
    task = make_task()
    variables = start(task, batch)
    floats = {**batch, "image": batch["image"].astype(np.float32) / 255}
    assert_close(predict(task, variables, floats), predict(task, variables, batch))
    assert_close(task.loss(variables, floats, KEY)[0], task.loss(variables, batch, KEY)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), (0.25,)), ((0.2, 0.4, 0.6), (0.1, 0.2, 0.3)), ((0.2, 0.4, 0.6), (0.5,))]
)
def test_images_are_normalized_by_channel(mean, std):
    batch = make_batch(shape=(4, 4, 3))
    task = make_task(mean=mean, std=std)
    variables = start(task, batch)
    images = batch["image"] / 255.0
    for channel in range(3):
        shift, scale = mean[channel % len(mean)], std[channel % len(std)]
        images[..., channel] = (images[..., channel] - shift) / scale
    logits = task.model.apply(variables, jnp.asarray(images, jnp.float32))
    assert_close(predict(task, variables, batch), logits)
    assert metrics.compute(task.loss(variables, batch, KEY)[1][1])["loss"] == pytest.approx(
        reference_mean(logits, np.eye(K)[batch["label"]], batch["weight"]), rel=1e-5
    )


def test_variables_are_drawn_for_the_shape_of_the_images():
    task = make_task()
    variables = task.init(jax.random.key(0), make_batch(shape=(5, 3, 2)))
    kernel = variables["params"]["backbone"]["fc1"]["kernel"]
    assert kernel.shape == (30, 8)
    assert kernel.std() == pytest.approx((2 / 30) ** 0.5, rel=0.2)  # He et al. 2015
    again = task.init(jax.random.key(0), make_batch(shape=(5, 3, 2), count=2))
    assert_close(again, variables, rtol=0, atol=0)


# --- Training ---


@pytest.mark.parametrize("loss_name", LOSSES)
def test_every_loss_learns_a_separable_problem(loss_name):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % K
    images = rng.integers(0, 60, (30, 4, 4, 1), dtype=np.uint8)
    images[np.arange(30), labels] += 150  # the bright row tells the class
    batch = {"image": images, "label": labels}
    task = make_task(loss_name=loss_name)
    variables = start(task, batch)

    def step(params, _):
        loss, gradient = jax.value_and_grad(lambda p: task.loss({"params": p}, batch, KEY)[0])(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), loss

    params, values = jax.jit(lambda p: jax.lax.scan(step, p, length=150))(variables["params"])
    assert values[-1] < 0.5 * values[0]
    outputs = predict(task, {"params": params}, batch)
    assert metrics.compute(measure(task, outputs, batch))["top1"] == 1


def test_batch_statistics_are_updated_in_training_and_used_in_evaluation(batch):
    task = make_deep_task()
    variables = start(task, batch)
    _, (updated, _) = jax.jit(task.loss)(variables, batch, KEY)
    assert set(updated) == {"batch_stats"}
    before, after = (v["batch_stats"]["backbone"]["bn1"]["mean"] for v in (variables, updated))
    kernel, bias = (variables["params"]["backbone"]["fc1"][name] for name in ("kernel", "bias"))
    pixels = (batch["image"].reshape(6, -1) / 255.0 - 0.5) / 0.5
    mean = (pixels @ np.asarray(kernel, np.float64) + bias).mean(0)
    np.testing.assert_allclose(after, 0.9 * before + 0.1 * mean, rtol=1e-4, atol=1e-6)
    moved = {**variables, **updated}
    together = predict(task, moved, batch)
    one = {name: leaf[:1] for name, leaf in batch.items()}
    assert_close(predict(task, moved, one), together[:1])
    assert np.abs(together - predict(task, variables, batch)).max() > 1e-4


def test_a_model_without_statistics_has_no_collections_to_update(batch):
    task = make_task()
    _, (updated, _) = task.loss(start(task, batch), batch, KEY)
    assert dict(updated) == {}


@pytest.mark.parametrize("auxiliary", [("fc1",), ("fc1", "fc2")])
def test_auxiliary_heads_add_their_weight_times_their_loss(batch, auxiliary):
    options = {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1}
    task = make_deep_task(auxiliary, auxiliary_weight=0.4, **options)
    variables = start(task, batch)
    main, sown = task.model.apply(
        variables,
        jnp.asarray((batch["image"] / 255 - 0.5) / 0.5, jnp.float32),
        train=True,
        mutable=["batch_stats", "auxiliary"],
    )
    targets = np.eye(K)[batch["label"]]

    def mean(logits):
        return reference_mean(
            logits, targets, batch["weight"], "cross_entropy", CLASS_WEIGHTS, smoothing=0.1
        )

    assert set(sown["auxiliary"]) == set(auxiliary)
    wanted = mean(main) + 0.4 * sum(mean(logits) for logits in sown["auxiliary"].values())
    (loss, (updated, sums)), gradient = loss_and_gradient(task, variables, batch)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert metrics.compute(sums)["loss"] == pytest.approx(wanted, rel=1e-5)
    assert set(updated) == {"batch_stats"}  # logits are no state
    for name in auxiliary:
        assert jnp.abs(gradient[f"auxiliary_{name}"]["fc"]["kernel"]).max() > 1e-4


def test_without_their_weight_auxiliary_heads_learn_nothing_and_evaluation_has_none(batch):
    task = make_deep_task(("fc1",), auxiliary_weight=0.0)
    variables = start(task, batch)
    (loss, _), gradient = loss_and_gradient(task, variables, batch)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient["auxiliary_fc1"]))
    assert predict(task, variables, batch).shape == (6, K)
    plain = make_deep_task()
    kept = {name: leaf for name, leaf in variables["params"].items() if name != "auxiliary_fc1"}
    variables = {**variables, "params": kept}
    assert float(plain.loss(variables, batch, KEY)[0]) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("make", [make_task, lambda: make_deep_task(("fc1",))])
def test_bfloat16_parameters_give_float32_losses_metrics_and_statistics(batch, make):
    task = make()
    variables = start(task, batch)
    low = {**variables, "params": jax.tree.map(lambda p: p.astype(jnp.bfloat16), variables["params"])}
    exact, _ = jax.jit(task.loss)(variables, batch, KEY)
    loss, (updated, sums) = jax.jit(task.loss)(low, batch, KEY)
    outputs = predict(task, low, batch)
    assert loss.dtype == outputs.dtype == jnp.float32
    for leaf in jax.tree.leaves((updated, sums, measure(task, outputs, batch))):
        assert leaf.dtype == jnp.float32
    assert float(loss) == pytest.approx(float(exact), rel=0.05)
    for function, *args in ((task.loss, low, batch, KEY), (task.predict, low, batch)):
        lines = str(jax.make_jaxpr(function)(*args)).splitlines()
        products = [line for line in lines if "= dot_general" in line]
        assert products
        assert all(":bf16[" in line for line in products)


# --- Metrics ---


def test_the_metrics_are_those_of_scikit_learn():
    batch = make_batch(40, num_classes=8)
    batch["weight"][::7] = 0
    task = Classification(create_model("mlp", num_classes=8, widths=(8,)))
    outputs = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    sums = measure(task, outputs, batch)
    assert set(sums) == {"loss", "top1", "top5", "confusion"}
    labels, weights = batch["label"], batch["weight"]
    shown = metrics.compute(sums)
    np.testing.assert_allclose(
        shown["confusion"],
        sklearn_confusion_matrix(labels, outputs.argmax(-1), labels=range(8), sample_weight=weights),
    )
    order = np.argsort(-outputs, axis=-1)
    for k in (1, 5):
        right = (order[:, :k] == labels[:, None]).any(-1)
        assert shown[f"top{k}"] == pytest.approx(np.average(right, weights=weights), rel=1e-6)
    assert shown["loss"] == pytest.approx(reference_mean(outputs, np.eye(8)[labels], weights), rel=1e-5)


def test_metrics_of_parts_add_up_to_those_of_the_whole(batch):
    task = make_task(class_weights=CLASS_WEIGHTS)
    outputs = np.asarray(predict(task, start(task, batch), batch))
    parts = [
        measure(task, outputs[part], {name: leaf[part] for name, leaf in batch.items()})
        for part in (slice(0, 1), slice(1, 6))
    ]
    assert_close(metrics.compute(metrics.add(parts)), metrics.compute(measure(task, outputs, batch)))


@pytest.mark.parametrize(("num_classes", "has_top5"), [(5, False), (6, True)])
def test_the_best_five_are_counted_where_they_can_be_wrong(num_classes, has_top5):
    task = Classification(create_model("mlp", num_classes=num_classes, widths=(4,)))
    sums = jax.eval_shape(task.metrics, jnp.zeros((6, num_classes)), make_batch())
    assert ("top5" in sums) == has_top5


# --- Mistakes ---


def test_a_good_batch_passes_the_check(batch):
    make_task().check(batch)
    make_task(mean=(0.1, 0.2, 0.3), std=(0.5,)).check(make_batch(shape=(4, 4, 3)))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (K, "label 3 is out of range: the model has 3 classes, so labels run from 0 to 2"),
        (-1, "label -1 is out of range"),
    ],
)
def test_a_label_out_of_range_is_refused(batch, label, words):
    batch["label"][4] = label
    with pytest.raises(InputError, match=words):
        make_task().check(batch)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({}, (4, 4), r"image has shape \(6, 4, 4\); wanted \[N, H, W, C\]"),
        ({}, (3, 8, 8), "with its channels first; wanted"),
        ({"mean": (0.1, 0.2)}, (4, 4, 3), "image has 3 channels, but mean has 2 entries and std 1"),
        ({"std": (0.1, 0.2, 0.3)}, (4, 4, 1), "image has 1 channels, but mean has 1 .* std 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(options, shape, words):
    with pytest.raises(InputError, match=words):
        make_task(**options).check(make_batch(shape=shape))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda batch: {"image": batch["image"].astype(np.float32) + 200}, "image has floats from"),
        (lambda batch: {"image": batch["image"].astype(np.uint16)}, "pixels of uint16; wanted uint8"),
        (lambda batch: {"image": batch["image"].astype(object)}, "pixels of objects"),
        (lambda batch: {"label": batch["label"].astype(np.float32)}, "label is float32"),
        (lambda batch: {"label": batch["label"].astype(str)}, "label is <U.*; wanted whole numbers"),
    ],
)
def test_pixels_and_labels_of_another_kind_are_refused(batch, change, words):
    with pytest.raises(InputError, match=words):
        make_task().check({**batch, **change(batch)})


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_batch_without_an_image_or_a_label_is_refused(batch, name):
    del batch[name]
    with pytest.raises(InputError, match=f"and no {name}; wanted image and label"):
        make_task().check(batch)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss_name": "cross_entrpy"}, "unknown loss 'cross_entrpy'; did you mean 'cross_entropy'"),
        ({"loss_name": "qqqqq"}, "known: bce, cross_entropy, hinge, mse"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"label_smoothing": 0.1, "loss_name": "hinge"}, "belongs to cross_entropy.*'hinge'"),
        ({"class_weights": (1.0, 2.0)}, "class_weights has 2 entries for 3 classes"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        make_task(**options)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="num_classes=0 and has no head"):
        Classification(create_model("mlp", num_classes=0))
