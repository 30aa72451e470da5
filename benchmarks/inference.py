"""How fast the forward pass is in evaluation, beside plain Flax, Keras on JAX, and torchvision.

Command: python benchmarks/inference.py [NETWORK ...] [--batch-size 1] [--peer-python PYTHON]
Everything else is as in `train_step.py`.
"""

from train_step import main

if __name__ == "__main__":
    main(inference=True)
