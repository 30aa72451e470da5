"""`torchvision` beside a torch that its compiled operators were not built for.

torchvision's models are plain Python, but as it is imported it registers what two of its compiled
operators do to shapes, and torch refuses that for operators that do not exist. Declaring them is
enough for every classifier; to call one is still an error.
"""

import torch

if torch.version.cuda is None:  # else they are there
    _declarations = torch.library.Library("torchvision", "DEF")  # undone when it is garbage collected
    for _operator in ("nms", "qnms"):
        _declarations.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision

__all__ = ["torchvision"]
