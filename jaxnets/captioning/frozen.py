"""Frozen and pretrained backbones of captioners."""

import jax
import jax.numpy as jnp

from jaxnets.errors import InputError

Variables = dict

FROZEN = "frozen"  # the collection of a frozen backbone


def freeze_backbone(variables: Variables) -> Variables:
    """Moves the backbone's variables into the collection "frozen"."""
    frozen = {name: {"backbone": v["backbone"]} for name, v in variables.items() if "backbone" in v}
    rest = {
        name: {part: v for part, v in parts.items() if part != "backbone"}
        for name, parts in variables.items()
    }
    return {**{name: parts for name, parts in rest.items() if parts}, FROZEN: frozen}


def with_backbone(variables: Variables, classifier: Variables) -> Variables:
    """Replaces the backbone in a captioner's variables with that of a (pretrained) classifier.

    Args:
        variables: variables from `Captioning.init`, frozen or not.
        classifier: variables of a model from `create_model`, such as those from `weights.from_torch`.

    Raises:
        InputError: the classifier has another backbone.
    """
    home = variables.get(FROZEN, variables)
    new = {}
    for name, parts in home.items():
        if "backbone" not in parts:
            new[name] = parts
            continue
        given = classifier.get(name, {}).get("backbone", {})
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (parts["backbone"], given)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"classifier has other {name} than the captioner's backbone: its architecture or "
                "settings differ"
            )
        new[name] = {**parts, "backbone": given}
    return {**variables, FROZEN: new} if FROZEN in variables else {**variables, **new}
