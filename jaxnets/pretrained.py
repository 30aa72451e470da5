"""Pretrained models: from a name to a model with its weights, and what is measured with them."""

import functools
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets import runs, weights
from jaxnets.config import CONFIG_FILE, parse_settings
from jaxnets.data import decoding, eval_batches
from jaxnets.data.folder import read_held_out
from jaxnets.errors import InputError, unknown_name
from jaxnets.metrics import in_top_k
from jaxnets.models import Classifier
from jaxnets.training import DataParallel
from jaxnets.training.fit import CHECKPOINTS
from jaxnets.weights import Preprocessing, Pretrained, imagenet
from jaxnets.weights.images import CROPS


def load_pretrained(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    new_head: bool = False,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    **overrides: Any,
) -> tuple[Classifier, dict[str, Any]]:
    """A model and its weights, fetched where they are not here yet.

    Args:
        name_or_path: one of `jaxnets.list_models(pretrained=True)`, for its best public weights; or a
            source that says itself which model it is: "hf:timm/..." of the Hugging Face hub, a
            `.safetensors` file that `jaxnets convert` or `jaxnets.weights.save` wrote, or the directory
            of a run.
        source: weights for the model of that name: a `.safetensors` or `.pth` file (the latter with
            `pip install 'jaxnets[torch]'`), a folder with `model.safetensors`, "hf:OWNER/NAME", a
            published file such as "torchvision:resnet50-0676ba61.pth", or the directory of a run.
        num_classes: None for those of the weights. With another number the layer that scores classes
            is drawn anew and all else is loaded; with 0 there is none.
        in_channels: of the images; None for those of the weights. For 1 the first kernel is summed
            over its channels, for more than before they are repeated in order and scaled by old / new.
        new_head: draw the layer that scores classes anew, also for as many classes as before.
        dtype: of the variables; None for that of the file.
        key: for what is drawn anew; `jax.random.key(0)` where None.
        **overrides: settings of the model, as for `jaxnets.create_model`, for instance `drop_path=0.2`.

    Returns:
        The model, and its variables as NumPy arrays: `model.apply(variables, images)`.

    Raises:
        InputError: there are no such weights, they cannot be fetched (the text says which file to put
            where), are damaged, or are of another architecture (the text says which they look like).
    """
    loaded = load(name_or_path, source, dtype=dtype, key=key, **overrides)
    loaded = loaded.adapted(num_classes, in_channels=in_channels, new_head=new_head, key=key)
    return loaded.model, loaded.variables


def load(
    name_or_path: str | PathLike,
    source: str | PathLike | None = None,
    *,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    **settings: Any,
) -> Pretrained:
    """As `jaxnets.weights.load`, and from the directory of a run."""
    directory = Path(name_or_path if source is None else source)
    if not is_run(directory):
        return weights.load(name_or_path, source, dtype=dtype, key=key, **settings)
    run = runs.load_run(directory, task="classification")
    if source is not None and run.config.model != str(name_or_path):
        raise weights.wrong_model(directory, run.config.model, name_or_path)
    side, _, channels = run.image_shape
    loaded = Pretrained(
        model=weights.with_channels(run.task.model, channels),
        variables=jax.tree.map(lambda leaf: np.asarray(leaf, dtype), run.variables),
        # As `jaxnets.data` cuts the images of a folder.
        preprocessing=Preprocessing(side, side, "bilinear", *_constants(run.task, channels)),
        class_names=run.class_names,
        settings=parse_settings(run.config.settings),
        origin=str(directory),
    )
    return loaded.adapted(key=key, **settings)


def is_run(directory: str | PathLike) -> bool:
    """Whether a path is the directory of a run."""
    path = Path(directory)
    return (path / CONFIG_FILE).is_file() and (path / CHECKPOINTS).is_dir()


def _constants(task: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel."""
    mean, std = (np.broadcast_to(values, channels).tolist() for values in (task.mean, task.std))
    return tuple(mean), tuple(std)


def evaluate(
    members: Sequence[Pretrained],
    folder: str | PathLike,
    *,
    crops: str = "center",
    batch_size: int = 64,
    strict: bool = False,
) -> dict[str, float]:
    """Measures pretrained models, alone or together, on a folder of images such as ImageNet's.

    The probabilities of all views of an image (Krizhevsky et al. 2012, section 4.1) and then of all
    members are averaged. All devices of this process share each batch.

    Args:
        members: models with the same classes. Each sees the images as its own weights want them.
        folder: with a sub-folder a class, called as the members' classes are or, for ImageNet's, by
            their WordNet identifiers. Some of the classes will do. See `read_held_out` for which images
            are taken.
        crops: "center"; "flip", with its mirror image; or "ten".
        batch_size: images at a time, of each of which there are 1, 2 or 10 views.
        strict: refuse an unreadable image, instead of leaving it out.

    Returns:
        `images`, how many were measured, `loss` (cross entropy), `top1` and, where there are more than
        five classes, `top5`.

    Raises:
        InputError: the members have different classes, or the folder or its classes are unknown.
    """
    first = members[0]
    for member in members:
        if member.class_names != first.class_names:
            raise InputError(
                f"pretrained: {member.origin} has other classes than {first.origin}; average models "
                "of the same classes"
            )
    folders, paths, labels = read_held_out(folder, strict)
    labels = class_indices(folders, first.class_names)[labels]
    sums = []
    for member in members:
        source = CropsOfFiles(paths, labels, member.class_names, preprocessing_of(member), crops, strict)
        probabilities, weights = _predicted(member, source, batch_size)
        sums.append(probabilities)
    mean = np.mean(sums, axis=0)
    own = mean[np.arange(len(labels)), labels]
    count = weights.sum()
    results = {
        "images": float(count),
        "loss": float(-(np.log(np.maximum(own, 1e-30)) * weights).sum() / count),
        "top1": float((in_top_k(mean, labels, 1) * weights).sum() / count),
    }
    if mean.shape[1] > 5:
        results["top5"] = float((in_top_k(mean, labels, 5) * weights).sum() / count)
    return results


def predict(member: Pretrained, picture: str | PathLike) -> np.ndarray:
    """Probabilities f32[K] of a picture's classes.

    Args:
        member: of `load`.
        picture: as for `jaxnets.weights.Preprocessing`.

    Raises:
        InputError: the picture cannot be read, or nothing tells what images the weights want.
    """
    crops = preprocessing_of(member).crops(picture)
    return np.asarray(jax.jit(_predictor(member))(member.variables, {"image": crops[None]}))[0]


class CropsOfFiles:
    """Image files as a source of views, uint8[V, H, W, C] each.

    Args:
        paths: N files.
        labels: int[N].
        class_names: the K names.
        preprocessing: how the views are cut.
        crops: which, of `jaxnets.weights.images.CROPS`.
        strict: refuse an unreadable image, which otherwise comes as zeros of weight 0.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        crops: str,
        strict: bool,
    ):
        if crops not in CROPS:
            raise unknown_name("kind of crops", crops, CROPS)
        self.paths, self.labels = list(paths), np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        side, channels = preprocessing.size, len(preprocessing.mean)
        self.image_shape = (CROPS[crops], side, side, channels)
        self._cut = functools.partial(preprocessing.crops, kind=crops)
        self._unreadable = decoding.UnreadableImages(self.image_shape, strict)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.paths[index], self.labels[index]
        try:
            return {"image": self._cut(path), "label": label}
        except InputError as error:
            return self._unreadable.stand_in(path, label, error)


def preprocessing_of(member: Pretrained) -> Preprocessing:
    """What images the weights want; `InputError` where nothing tells."""
    if member.preprocessing is None:
        raise InputError(
            f"preprocessing: {member.origin} does not tell what images its weights want; save it with "
            "its preprocessing by jaxnets.weights.save"
        )
    return member.preprocessing


def _predictor(member: Pretrained) -> Callable[[Any, Any], jax.Array]:
    """`(variables, batch of views [N, V, H, W, C]) -> f32[N, K]`, the mean of their probabilities."""

    def predict(variables, batch):
        views = batch["image"]
        images = member.preprocessing.normalize(views.reshape(-1, *views.shape[2:]))
        logits = member.model.apply(variables, images)
        return jax.nn.softmax(logits).reshape(*views.shape[:2], -1).mean(axis=1)

    return predict


def _predicted(
    member: Pretrained, source: CropsOfFiles, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities f32[N, K] and weights f32[N] of every image of a source."""
    parallel = DataParallel.create()
    batch_size = -(-batch_size // parallel.replicas) * parallel.replicas
    predict = parallel.compile_predict(_predictor(member))
    variables = parallel.replicate(member.variables)
    rows, weights = [], []
    for batch in eval_batches(source, batch_size):
        rows.append(np.asarray(predict(variables, parallel.put({"image": batch["image"]}))))
        weights.append(batch["weight"])
    return np.concatenate(rows)[: len(source)], np.concatenate(weights)[: len(source)]


def class_indices(folders: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """The class int[K] that each folder's name means."""
    known = {name: index for index, name in enumerate(class_names)}
    if tuple(class_names) == imagenet.class_names(1000):
        known |= {identifier: index for index, identifier in enumerate(imagenet.classes())}
    unknown = [name for name in folders if name not in known]
    if unknown:
        raise InputError(
            f"dataset: the model has no class {unknown[0]!r}; wanted folders called as its classes "
            f"({', '.join(list(known)[:3])} ...)"
            + (" or by WordNet identifiers (n01440764 ...)" if len(known) > len(class_names) else "")
        )
    return np.array([known[name] for name in folders])
