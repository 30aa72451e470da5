"""What a run of detection begins with: a detector for the classes of a dataset, perhaps with weights."""

import optax

from jaxnets import weights
from jaxnets.config import parse_settings
from jaxnets.detection.detector import Detector
from jaxnets.models import model_info
from jaxnets.runs import beginning
from jaxnets.runs.beginning import BackboneConfig, Models
from jaxnets.weights.transfer import HEAD

STAGES = 4  # of a backbone, of strides 4 to 32


def images_of(name: str, side: int) -> dict[str, int]:
    """The settings by which a detector takes pictures that fit on a square."""
    return {"min_size": side, "max_size": side}


def norm_of(name: str) -> str:
    """The norm of a backbone with weights."""
    usual = model_info(name).settings
    return usual["norm"] if usual.get("version") == 2 else "frozen"


def has_masks(models: Models, config: BackboneConfig) -> bool:
    """Whether the detector of a configuration finds masks."""
    name, settings = config.model, parse_settings(config.settings)
    if name is None:
        loaded = beginning.read(models, config)
        name, settings = loaded.model.model_name, {**loaded.settings, **settings}
    beginning.refuse_other(models, name)
    return bool({**model_info(name).settings, **settings}.get("masks"))


def partly_frozen(
    optimizer: optax.GradientTransformation, model: Detector, stages: int
) -> optax.GradientTransformation:
    """An optimizer that leaves the first stages of the backbone as they are."""
    if not stages:
        return optimizer
    first = HEAD if stages == STAGES else model.maps[stages - STAGES]
    return optax.selective_transform(optimizer, freeze_mask=weights.freeze_mask(model, first))
