"""Trains LeNet-5 on scikit-learn's handwritten digits.

Command: python experiments/digits_lenet5.py
Result:  98.3 % test accuracy with seed 0 (2 CPU cores, jax 0.10.2)
"""

import optax

import jaxnets

if __name__ == "__main__":
    data = jaxnets.data.load("digits")
    model = jaxnets.create_model("lenet5", num_classes=data.num_classes)
    task = jaxnets.Classification(
        model, mean=(0.31,), std=(0.32,), augment=jaxnets.data.augmentation.digits()
    )
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, 30 * 22), weight_decay=0.05)
    state, history = jaxnets.training.fit(
        task, data.train, test=data.test, optimizer=optimizer, epochs=30, batch_size=64
    )
    print(f"test accuracy {history.epochs[-1]['test_top1']:.2%}")
