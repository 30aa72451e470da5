"""Losses of single examples, against float64 NumPy and PyTorch's values.

The constants are those of torch 2.13 in float64 for LOGITS, LABELS, SOFT and WEIGHTS.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import losses

LOGITS = np.array(
    [
        [1.5, -0.3, 0.2, 2.0],
        [-1.0, 0.7, 0.1, -2.2],
        [0.4, 0.4, 3.1, -0.6],
        [2.5, -1.7, 0.0, 0.9],
        [0.3, 1.2, -0.8, 1.1],
    ]
)
LABELS = np.array([0, 1, 3, 2, 3])
ONE_HOT = np.eye(4)[LABELS]
SOFT = np.array(
    [
        [0.7, 0.3, 0.0, 0.0],
        [0.25, 0.25, 0.25, 0.25],
        [0.0, 0.4, 0.0, 0.6],
        [0.0, 0.0, 1.0, 0.0],
        [0.1, 0.2, 0.3, 0.4],
    ]
)
WEIGHTS = np.array([0.5, 2.0, 1.25, 3.0])

ALL = {
    "cross_entropy": losses.cross_entropy,
    "hinge": losses.hinge,
    "mean_squared_error": losses.mean_squared_error,
    "binary_cross_entropy": losses.binary_cross_entropy,
}


def single(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def log_softmax(logits):
    """In float64, shifted by the greatest score."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


# torch.nn.functional.cross_entropy(..., reduction="none") and, last, reduction="mean".
TORCH_CROSS_ENTROPY = {
    (False, 0.0): (
        [1.1270545947, 0.5802686868, 3.8476736508, 2.7615771035, 0.9947574912],
        1.8622663054,
    ),
    (False, 0.1): (
        [1.1920545947, 0.7102686868, 3.7051736508, 2.7190771035, 1.0597574912],
        1.8772663054,
    ),
    (True, 0.0): (
        [0.5635272974, 1.1605373736, 11.5430209523, 3.4519713794, 2.9842724737],
        2.0208543053,
    ),
    (True, 0.1): (
        [0.7904900305, 1.3999039772, 10.8598887856, 3.5590403777, 2.9180855529],
        2.0028111512,
    ),
}


@pytest.mark.parametrize(("weighted", "smoothing"), TORCH_CROSS_ENTROPY)
def test_cross_entropy_equals_pytorch_with_class_weights_and_label_smoothing(weighted, smoothing):
    each, mean = TORCH_CROSS_ENTROPY[weighted, smoothing]
    logits, targets, weights = single(LOGITS, ONE_HOT, WEIGHTS)
    values = losses.cross_entropy(logits, targets, smoothing, weights if weighted else None)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, each, rtol=1e-6)
    counted = losses.target_weights(targets, weights if weighted else jnp.ones(4))
    np.testing.assert_allclose(values.sum() / counted.sum(), mean, rtol=1e-6)


def test_cross_entropy_of_soft_targets_equals_pytorch():
    logits, targets, weights = single(LOGITS, SOFT, WEIGHTS)
    np.testing.assert_allclose(
        losses.cross_entropy(logits, targets),
        [1.6670545947, 1.8802686868, 3.4476736508, 2.7615771035, 1.6247574912],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        losses.cross_entropy(logits, targets, 0.2, weights),
        [2.2871924177, 3.554203409, 8.3055010507, 3.666109376, 2.6459877891],
        rtol=1e-6,
    )


@pytest.mark.parametrize("num_classes", [2, 7, 1000])
def test_cross_entropy_is_its_formula_on_random_scores(num_classes):
    rng = np.random.default_rng(num_classes)
    logits = rng.normal(0, 5, (16, num_classes))
    targets = rng.dirichlet(np.ones(num_classes), 16)
    weights = rng.uniform(0.1, 3, num_classes)
    smooth = 0.7 * targets + 0.3 / num_classes
    wanted = -(weights * smooth * log_softmax(logits)).sum(-1)
    values = losses.cross_entropy(*single(logits, targets), 0.3, *single(weights))
    np.testing.assert_allclose(values, wanted, rtol=2e-5)


def test_uniform_scores_cost_the_logarithm_of_the_number_of_classes():
    values = losses.cross_entropy(jnp.zeros((2, 10)), jnp.eye(10)[:2])
    np.testing.assert_allclose(values, np.log(10), rtol=1e-6)


def test_the_weight_of_an_example_is_that_of_its_class_or_of_its_mixture():
    weights, hard, soft = single(WEIGHTS, ONE_HOT, SOFT)
    np.testing.assert_allclose(losses.target_weights(hard, weights), [0.5, 2.0, 3.0, 1.25, 3.0])
    # 0.7 * 0.5 + 0.3 * 2; the mean; 0.4 * 2 + 0.6 * 3; ...
    np.testing.assert_allclose(
        losses.target_weights(soft, weights), [0.95, 1.6875, 2.6, 1.25, 2.025], rtol=1e-6
    )


@pytest.mark.parametrize("margin", [1.0, 0.5, 0.0])
def test_hinge_is_the_sum_over_wrong_classes_written_as_a_loop(margin):
    wanted = np.zeros(len(LABELS))
    for n, label in enumerate(LABELS):
        for k in range(4):
            if k != label:
                wanted[n] += max(0.0, LOGITS[n, k] - LOGITS[n, label] + margin)
    values = losses.hinge(*single(LOGITS, ONE_HOT), margin=margin)
    np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-6)


def test_hinge_is_pytorchs_multi_margin_loss_times_the_number_of_classes():
    # MultiMarginLoss divides the sum over the wrong classes by K; Weston and Watkins do not.
    multi_margin = np.array([0.375, 0.1, 2.175, 1.35, 0.325])
    values = losses.hinge(*single(LOGITS, ONE_HOT))
    np.testing.assert_allclose(values, 4 * multi_margin, rtol=1e-6)
    values = losses.hinge(*single(LOGITS, ONE_HOT), margin=0.5)
    np.testing.assert_allclose(values.mean(), 4 * 0.66, rtol=1e-6)


def test_hinge_of_a_mixture_weighs_right_scores_and_wrong_terms():
    # s = (2, 1, -3), t = (0.75, 0.25, 0): right = 1.75;
    # 0.25 * max(0, 1.25) + 0.75 * max(0, 0.25) + 1 * max(0, -3.75) = 0.5
    value = losses.hinge(jnp.array([[2.0, 1.0, -3.0]]), jnp.array([[0.75, 0.25, 0.0]]))
    np.testing.assert_allclose(value, [0.5], rtol=1e-6)


def test_hinge_is_zero_with_zero_gradient_beyond_the_margin():
    logits, targets = jnp.array([[3.0, 1.5, 1.9]]), jnp.array([[1.0, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda s: losses.hinge(s, targets).sum())(logits)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, np.zeros((1, 3)))


def test_mean_squared_error_is_its_formula_and_averages_to_pytorchs():
    values = losses.mean_squared_error(*single(LOGITS, ONE_HOT))
    wanted = [sum((LOGITS[n, k] - ONE_HOT[n, k]) ** 2 for k in range(4)) / 4 for n in range(5)]
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
    np.testing.assert_allclose(values.mean(), 1.797, rtol=1e-6)


def test_binary_cross_entropy_is_its_formula_and_averages_to_pytorchs():
    values = losses.binary_cross_entropy(*single(LOGITS, ONE_HOT))
    probability = 1 / (1 + np.exp(-LOGITS))
    terms = ONE_HOT * np.log(probability) + (1 - ONE_HOT) * np.log(1 - probability)
    np.testing.assert_allclose(values, -terms.mean(-1), rtol=1e-6)
    np.testing.assert_allclose(values.mean(), 0.9455698032, rtol=1e-6)
    np.testing.assert_allclose(
        losses.binary_cross_entropy(*single(LOGITS, SOFT)),
        [1.0552088507, 0.7164819291, 1.4018956058, 1.1702442047, 0.9015184257],
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_for_huge_logits(name):
    logits = 1e18 * LOGITS  # squares of these still fit into float32
    logits, targets = single(logits, ONE_HOT)
    value, gradient = jax.jit(jax.value_and_grad(lambda s: ALL[name](s, targets).sum()))(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_huge_scores_saturate_to_the_limits_of_the_cross_entropies():
    logits, targets = single([[1e18, -1e18], [-1e18, 1e18]], [[1, 0], [1, 0]])
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), [0, 2e18], rtol=1e-6)
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, targets), [0, 1e18], rtol=1e-6)
    gradient = jax.grad(lambda s: losses.cross_entropy(s, targets).sum())(logits)
    np.testing.assert_allclose(gradient, [[0, 0], [-1, 1]], atol=1e-6)


def test_the_gradient_of_cross_entropy_is_probability_less_target():
    logits, targets = single(LOGITS, SOFT)
    gradient = jax.grad(lambda s: losses.cross_entropy(s, targets).sum())(logits)
    np.testing.assert_allclose(gradient, np.exp(log_softmax(LOGITS)) - SOFT, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_examples_do_not_see_each_other(name):
    logits, targets = single(LOGITS, SOFT)
    together = ALL[name](logits, targets)
    assert together.shape == (5,)
    alone = [ALL[name](logits[n : n + 1], targets[n : n + 1])[0] for n in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
