"""`jaxnets explain`: pictures of what a model looks at, and of what it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from jaxnets import recipes
from jaxnets.config import is_run, newest_run
from jaxnets.errors import InputError, unknown_name
from jaxnets.outputs import check_picture
from jaxnets.ranges import SEEDS, refuse_outside


@dataclass(frozen=True)
class Explain:
    """Draw why a model sees in pictures what it sees.

    occlusion, saliency, smoothgrad, guided_backprop, integrated_gradients and grad_cam show where the
    evidence for a class is. deconvnet shows what excites a unit, feature_maps what a layer makes of a
    picture, receptive_field what one of its units can see, filters the kernels of a convolution. A task
    may have methods of its own, such as attention."""

    method: tyro.conf.Positional[str]
    """What to draw, one of these methods."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files."""
    model: str | None = None
    """Directory of a run, or a pretrained model as NAME, NAME=SOURCE or SOURCE; None for the newest run
    under runs/."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """The class to look for, by its name or number; None for what the model sees in each picture."""
    layer: str | None = None
    """A feature map (stage1) or the path of a module (backbone/stage1_block1/conv1); None for the last
    maps, or the first convolution for filters."""
    unit: int | None = None
    """Channel of the layer; None for the most active one."""
    row: int | None = None
    """Row of the unit in the layer's maps; None for the middle."""
    column: int | None = None
    """Its column; None for the middle."""
    size: int | None = None
    """Side of the occluder in pixels; None for a quarter of the picture's."""
    stride: int | None = None
    """Pixels from one place of the occluder to the next; None for a quarter of its size."""
    seed: int | None = None
    """Of smoothgrad's noise; None for 0."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The picture to write; None for one called after the method."""

    def run(self) -> None:
        if not self.images:
            raise InputError("images: none given; name at least one picture file")
        path = self.output or Path(f"{self.method}.png")
        source = str(newest_run()) if self.model is None else self.model
        own = recipes.of_run(source).explain if is_run(source) else {}
        if self.method not in own | _METHODS:
            raise unknown_name("method", self.method, own | _METHODS)
        options = () if self.method in own else _METHODS[self.method][1:]
        for name in sorted({option for _, *known in _METHODS.values() for option in known}):
            if getattr(self, name) is not None and name not in options:
                said = name.removesuffix("_name")
                raise InputError(f"{said}: it means nothing to {self.method}; leave it out")
        refuse_outside("seed", self.seed, SEEDS)
        check_picture(path)
        if self.method in own:
            own[self.method](recipes.load(source), self.images, path)
        else:
            draw, *_ = _METHODS[self.method]
            draw(self, _opened(source, self.images), path)
        print(path)


class _Opened(NamedTuple):
    """A model, and the pictures as uint8[N, H, W, C] and as it reads them."""

    member: Any
    pictures: Any
    images: Any

    @property
    def network(self) -> tuple:
        return self.member.model, self.member.variables, self.images


def _opened(source: str, images: Sequence[Path]) -> _Opened:
    import jax.numpy as jnp
    import numpy as np

    from jaxnets import pretrained, weights

    member = weights.inside(pretrained.named(source))
    preprocess = weights.preprocessing_of(member)
    pictures = np.stack([preprocess.crops(path)[0] for path in images])
    return _Opened(member, pictures, jnp.asarray(preprocess.normalize(pictures)))


def _attributions(command: Explain, opened: _Opened, path: Path) -> None:
    """One method's maps of the pictures, and what the model makes of each."""
    import jax
    import numpy as np

    from jaxnets import explain, weights

    model, variables, images = opened.network
    activation = weights.ACTIVATIONS[opened.member.activation]
    probabilities = np.asarray(activation(jax.jit(model.apply)(variables, images)))
    if command.class_name is None:
        classes = probabilities.argmax(-1)
    else:
        classes = np.full(len(images), _class_index(command.class_name, opened.member.class_names))
    options = {}
    if command.method == "smoothgrad":
        options["key"] = jax.random.key(command.seed or 0)
    elif command.method == "grad_cam":
        options["layer"] = command.layer
    elif command.method == "occlusion":
        quarter = max(1, min(images.shape[1:3]) // 4)
        size = quarter if command.size is None else command.size
        stride = max(1, size // 4) if command.stride is None else command.stride
        options |= {"size": size, "stride": stride, "probability": activation}
    found = getattr(explain, command.method)(*opened.network, classes=classes, **options)
    titles = [
        f"{opened.member.class_names[k]}: {row[k]:.1%}"
        for k, row in zip(classes, probabilities, strict=True)
    ]
    explain.show_attributions(opened.pictures, {_COLUMNS[command.method]: found}, path, titles)


def _deconvnet(command: Explain, opened: _Opened, path: Path) -> None:
    """The pictures in which a unit is most active, what it answers to there, and what it can see."""
    import numpy as np

    from jaxnets import explain

    layer = command.layer or _deepest(opened)
    unit = command.unit
    if unit is None:
        outputs = np.asarray(explain.feature_maps(*opened.network, layer))
        unit = int(outputs.reshape(-1, outputs.shape[-1]).max(0).argmax())
    count = min(9, len(opened.images))
    best, _ = explain.top_images(*opened.network, layer, unit, count)
    model, variables, images = opened.network
    found = explain.deconvnet(model, variables, images[best], layer, unit)
    boxes = None
    if len(explain.layer_shapes(*opened.network)[layer]) == 4:
        boxes = [explain.receptive_field(*opened.network, layer, *place) for place in found.positions]
    title = f"unit {unit} of {layer}"
    pictures = opened.pictures[np.asarray(best)]
    explain.show_deconvnet(pictures, found.pixels, found.strengths, path, boxes, title)


def _feature_maps(command: Explain, opened: _Opened, path: Path) -> None:
    from jaxnets import explain

    layer = command.layer or _deepest(opened)
    maps = explain.feature_maps(*opened.network, layer)
    if maps.ndim != 4:
        raise InputError(f"layer: {layer} gives {maps.shape}, which are no maps; name another")
    explain.show_feature_maps(_only(opened.pictures), maps[0], path, f"feature maps of {layer}")


def _receptive_field(command: Explain, opened: _Opened, path: Path) -> None:
    from jaxnets import explain

    layer = command.layer or _deepest(opened)
    shape = explain.layer_shapes(*opened.network).get(layer, ())
    middle = (shape[1] // 2, shape[2] // 2) if len(shape) == 4 else (0, 0)
    row, column = (
        default if given is None else given
        for given, default in zip((command.row, command.column), middle, strict=True)
    )
    box = explain.receptive_field(*opened.network, layer, row, column)
    title = f"receptive field of {layer}\nat row {row}, column {column} of {shape[1]} x {shape[2]}"
    explain.show_receptive_field(_only(opened.pictures), box, path, title)


def _filters(command: Explain, opened: _Opened, path: Path) -> None:
    from jaxnets import explain

    kernels = explain.filters(*opened.network, command.layer)
    explain.show_filters(kernels, path, f"filters of {command.layer or 'the first convolution'}")


def _deepest(opened: _Opened) -> str:
    from jaxnets.explain import tracing

    return tracing.deepest_maps(tracing.trace(*opened.network))


def _only(pictures: Any) -> Any:
    if len(pictures) > 1:
        raise InputError(f"images: {len(pictures)} given; this method draws one at a time")
    return pictures[0]


def _class_index(name: str, names: Sequence[str]) -> int:
    """A class by its name or, where none is called so, by its number."""
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    if name.isdecimal():
        raise InputError(
            f"class: {name} is not one of {len(names)}, which run from 0 to {len(names) - 1}"
        )
    raise unknown_name("class", name, names)


_COLUMNS = {
    "occlusion": "occlusion: fall of probability",
    "saliency": "saliency: size of the gradient",
    "smoothgrad": "SmoothGrad: mean gradient",
    "guided_backprop": "guided backpropagation",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
}
"""What is written above an attribution."""

_METHODS = {
    "occlusion": (_attributions, "class_name", "size", "stride"),
    "saliency": (_attributions, "class_name"),
    "smoothgrad": (_attributions, "class_name", "seed"),
    "guided_backprop": (_attributions, "class_name"),
    "integrated_gradients": (_attributions, "class_name"),
    "grad_cam": (_attributions, "class_name", "layer"),
    "deconvnet": (_deconvnet, "layer", "unit"),
    "feature_maps": (_feature_maps, "layer"),
    "receptive_field": (_receptive_field, "layer", "row", "column"),
    "filters": (_filters, "layer"),
}
"""What draws, and the options that mean something to it."""
