"""Makes the rows of `segmenters_vgg.py`: data/segmenters/{fcn*s_*,segnet_*}.npz.

`python make_segmenter_vgg_goldens.py [NAME ...]`, with torch 2.14.1 from pip. The programs follow the
prototxt files of github.com/shelhamer/fcn.berkeleyvision.org (voc-fcn32s, voc-fcn16s, voc-fcn8s,
voc-fcn8s-atonce) and github.com/alexgkendall/SegNet-Tutorial (Models/segnet_train.prototxt,
Models/segnet_basic_train.prototxt), layer by layer, by torch's own operations. All is computed in
float64. Names with `train_` before them are those of `TRAINED`.
"""

import time

import draw
import numpy as np
import segmenters
import segmenters_vgg
import torch
import torch.nn.functional as F  # noqa: N812
from make_segmenter_goldens import as_input, written
from rows import asked
from segmenters_vgg import SEGMENTERS, TRAINED

WIDTHS, HIDDEN = (64, 128, 256, 512, 512), 4096


class Program:
    """A program on tensors by name; the first call makes a list of the shapes it wants.

    Attributes:
        state: the tensors; None while shapes are listed.
        shapes: of the tensors that were asked for.
        training: whether batch normalization uses the statistics of the batch.
    """

    def __init__(self, name):
        row = SEGMENTERS[name]
        self.options, self.model = row.overrides, row.model
        self.state, self.shapes, self.training = None, {}, False
        with torch.no_grad():
            self(torch.zeros(1, 3, 97, 120, dtype=torch.float64))
        self.state = {
            key: torch.from_numpy(value).double()
            for key, value in segmenters_vgg.drawn(name, self.shapes).items()
        }

    def tensor(self, key, *shape):
        if self.state is None:
            self.shapes[key] = shape
            return torch.ones(shape, dtype=torch.float64) / 100
        return self.state[key]

    def conv(self, x, name, features, kernel, padding=0):
        weight = self.tensor(f"{name}.weight", features, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self.tensor(f"{name}.bias", features), padding=padding)

    def deconv(self, x, name, kernel, stride):
        weight = self.tensor(f"{name}.weight", x.shape[1], x.shape[1], kernel, kernel)
        return F.conv_transpose2d(x, weight, stride=stride)

    def bn(self, x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        values = [self.tensor(f"{name}.{part}", x.shape[1]) for part in parts]
        return F.batch_norm(x, *values, training=self.training, momentum=0.1, eps=1e-5)

    def __call__(self, x):
        if self.model.startswith("fcn"):
            return self.fcn(x)
        return self.segnet_basic(x) if self.model == "segnet_basic" else self.segnet(x)

    def fcn(self, data):
        classes, hidden = 21, self.options.get("hidden", HIDDEN)
        x, pools = data, {}
        for stage, width in enumerate(self.options.get("widths", WIDTHS), start=1):
            for i in range(1, (2 if stage < 3 else 3) + 1):
                padding = 100 if (stage, i) == (1, 1) else 1
                x = F.relu(self.conv(x, f"conv{stage}_{i}", width, 3, padding))
            x = pools[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.conv(x, "fc6", hidden, 7))
        x = F.relu(self.conv(x, "fc7", hidden, 1))
        x = self.conv(x, "score_fr", classes, 1)
        height, width = data.shape[2:]
        if self.model.startswith("fcn32s"):
            x = self.deconv(x, "upscore", 64, 32)
            return x[:, :, 19 : 19 + height, 19 : 19 + width]

        def scaled(stage):
            if "atonce" not in self.model:
                return pools[stage]
            scale = self.tensor(f"scale_pool{stage}.weight", pools[stage].shape[1])
            return pools[stage] * scale[:, None, None]

        x = self.deconv(x, "upscore2", 4, 2)
        skip = self.conv(scaled(4), "score_pool4", classes, 1)
        x = x + skip[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
        if self.model.startswith("fcn16s"):
            x = self.deconv(x, "upscore16", 32, 16)
            return x[:, :, 27 : 27 + height, 27 : 27 + width]
        x = self.deconv(x, "upscore_pool4", 4, 2)
        skip = self.conv(scaled(3), "score_pool3", classes, 1)
        x = x + skip[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
        x = self.deconv(x, "upscore8", 16, 8)
        return x[:, :, 31 : 31 + height, 31 : 31 + width]

    def segnet(self, x):
        widths = self.options.get("widths", WIDTHS)
        depths = self.options.get("depths", (2, 2, 3, 3, 3))
        pooled = []
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            for i in range(1, depth + 1):
                name = f"conv{stage}_{i}"
                x = F.relu(self.bn(self.conv(x, name, width, 3, 1), f"{name}_bn"))
            size = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((size, indices))
        for stage in range(len(depths), 0, -1):
            size, indices = pooled[stage - 1]
            x = F.max_unpool2d(x, indices, 2, 2, output_size=size)
            for i in range(depths[stage - 1], 0, -1):
                name = f"conv{stage}_{i}_D"
                if (stage, i) == (1, 1):
                    return self.conv(x, name, 11, 3, 1)
                width = widths[stage - 1] if i > 1 else widths[stage - 2]
                x = F.relu(self.bn(self.conv(x, name, width, 3, 1), f"{name}_bn"))

    def segnet_basic(self, x):
        x, pooled = F.local_response_norm(x, 5, 1e-4, 0.75), []
        for stage in (1, 2, 3, 4):
            x = F.relu(self.bn(self.conv(x, f"conv{stage}", 64, 7, 3), f"conv{stage}_bn"))
            size = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            pooled.append((size, indices))
        for stage in (4, 3, 2, 1):
            size, indices = pooled[stage - 1]
            x = F.max_unpool2d(x, indices, 2, 2, output_size=size)
            name = f"conv_decode{stage}"
            x = self.bn(self.conv(x, name, 64, 7, 3), f"{name}_bn")
        return self.conv(x, "conv_classifier", 11, 1)


def constant(key: str) -> bool:
    """Whether no training changes a tensor."""
    return key.startswith(("upscore", "scale_"))


def evaluated(name: str) -> dict[str, np.ndarray]:
    program, row = Program(name), SEGMENTERS[name]
    images = segmenters_vgg.as_taken(name, segmenters.images(row.size, row.count))
    with torch.inference_mode():
        logits = program(as_input(images)).permute(0, 2, 3, 1).numpy()
    counted = [key for key in program.shapes if not constant(key) and "running_" not in key]
    return {
        "reference": f"torch {torch.__version__.partition('+')[0]}",
        "tensors": segmenters.tensors_text(program.shapes),
        "parameters": sum(program.state[key].numel() for key in counted),
        **segmenters.kept("logits", logits),
    }


def trained(name: str) -> dict[str, np.ndarray]:
    """Loss, gradients and changed statistics in training, without dropout."""
    program = Program(name)
    program.training = True
    before = {key: value.clone() for key, value in program.state.items()}
    learned = [key for key in program.state if not constant(key) and "running_" not in key]
    for key in learned:
        program.state[key].requires_grad_()
    images = segmenters_vgg.as_taken(name, segmenters.images(segmenters.TRAINED_SIZE))
    logits = program(as_input(images))
    labels = segmenters.labels(classes=logits.shape[1])
    loss = F.cross_entropy(logits, torch.from_numpy(labels), ignore_index=segmenters.IGNORED)
    loss.backward()
    changes = {
        key: (value - before[key]).numpy() for key, value in program.state.items() if "running_" in key
    }
    return {
        "reference": f"torch {torch.__version__.partition('+')[0]}",
        "tensors": segmenters.tensors_text(program.shapes),
        "loss": np.float64(loss.item()),
        "gradients": draw.sketch({key: program.state[key].grad.numpy() for key in learned}),
        "changes": draw.sketch(changes) if changes else np.zeros((0, 1 + draw.PROBES)),
    }


def main() -> None:
    rows = dict.fromkeys(SEGMENTERS, evaluated) | {f"train_{name}": trained for name in TRAINED}
    for name in asked(__doc__, "segmenters_vgg.SEGMENTERS", rows):
        start = time.perf_counter()
        told = written(name, rows[name](name.removeprefix("train_")))
        print(told, f"{time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
