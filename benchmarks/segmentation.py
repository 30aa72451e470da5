"""How fast segmenters are, beside plain Flax and torch: a train step, or the forward pass.

Command: python benchmarks/segmentation.py [NETWORK ...] [--inference] [--batch-size 4]
             [--peer-python PYTHON]
Prints the tables that are kept in benchmarks/segmentation.md: images of 520 x 520, logits of each pixel
included; torch is torchvision's model, and for SegNet, which torchvision lacks, `torch_segnet.py`.
Everything else is as in `train_step.py`.
"""

from contenders import SEGMENTERS
from train_step import main

if __name__ == "__main__":
    main(default=SEGMENTERS, size=520)
