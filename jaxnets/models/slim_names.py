"""The rules of TF-Slim's names that several families share; see `jaxnets.weights.renames`."""

from collections.abc import Mapping

from flax.core import FrozenDict

from jaxnets.layers.geometry import pair
from jaxnets.models.inception_parts import Chains, Layer
from jaxnets.models.nasnet_parts import Plan

Rules = list[tuple[str, ...]]


def unit(ours: str, theirs: str) -> Rules:
    """The rules for a convolution `conv` with its normalization `bn`, which slim has within its
    scope."""
    return [(f"{ours}/conv", theirs), (f"{ours}/bn", f"{theirs}.BatchNorm")]


def module_names(chains: Chains) -> dict[str, str]:
    """What slim calls the layers of an Inception module, by their names here.

    It numbers the chains, letters their steps and adds the size of the kernel
    (`Branch_1.Conv2d_0b_3x3`); a convolution that makes the maps smaller is `1a`.
    """
    names = {}
    for number, chain in enumerate(chains):
        letters = iter("abcdefgh")
        for step in chain:
            if callable(step):
                next(letters)
                continue
            for layer in (step,) if isinstance(step, Layer) else step:
                place = "1a" if layer.padding == 0 or layer.strides > 1 else f"0{next(letters)}"
                height, width = pair(layer.kernel_size, "kernel_size")
                names[layer.name] = f"Branch_{number}.Conv2d_{place}_{height}x{width}"
    return names


def modules(
    scopes: Mapping[str, str],
    chains: Mapping[str, Chains],
    others: Mapping[str, Mapping[str, str]] = FrozenDict(),
) -> Rules:
    """The rules for Inception modules.

    Args:
        scopes: what each module is called there.
        chains: of each.
        others: of each module the layers that are not called there as `module_names` says.
    """
    rules = []
    for name, scope in scopes.items():
        for layer, theirs in (module_names(chains[name]) | others.get(name, {})).items():
            rules += unit(f"backbone/{name}/{layer}", f"{scope}.{theirs}")
    return rules


def nasnet(plans: Mapping[str, Plan], depth: int) -> Rules:
    """The rules for a NASNet or PNASNet, whose cells slim numbers through.

    Args:
        plans: of the cells, by the beginning of their names here: "stem", "stage" and perhaps
            "reduction".
        depth: cells in each stage.
    """
    scopes = {"stem{i}": "cell_stem_{i-1}", "reduction{i}": "reduction_cell_{i-1}"}
    scopes |= {f"stage{s + 1}_cell{{i}}": f"cell_{{i+{s * depth - 1}}}" for s in (1, 2)}
    scopes |= {"stage1_cell{i}": "cell_{i-1}"}
    auxiliary = f"aux_{2 * depth - 1}.aux_logits"
    rules = [
        ("backbone/conv0", "conv0"),
        ("backbone/bn0", "conv0_bn"),
        ("auxiliary_stage2/conv1", f"{auxiliary}.proj"),
        ("auxiliary_stage2/bn1", f"{auxiliary}.aux_bn0"),
        ("auxiliary_stage2/conv2", f"{auxiliary}.Conv"),
        ("auxiliary_stage2/bn2", f"{auxiliary}.aux_bn1"),
        ("auxiliary_stage2/fc", f"{auxiliary}.FC"),
        ("head/fc", "final_layer.FC"),
    ]
    for ours, theirs in scopes.items():
        for kind, plan in plans.items():
            if ours.startswith(kind):
                rules += [
                    (f"backbone/{ours}/{here}", f"{theirs}.{there}") for here, there in _cell(plan)
                ]
    return rules


def _cell(plan: Plan) -> Rules:
    parts = [
        ("project_input/conv", "1x1"),
        ("project_input/bn", "beginning_bn"),
        ("project_previous/conv", "prev_1x1"),
        ("project_previous/bn", "prev_bn"),
        ("halve_previous/bn", "final_path_bn"),
        ("halve_previous/{layer}", "{layer}"),
    ]
    for number, found in enumerate(plan.sums):
        for side, operation in (("left", found.left), ("right", found.right)):
            ours, theirs = f"sum{number + 1}_{side}", f"comb_iter_{number}.{side}"
            size = f"{operation[-1]}x{operation[-1]}"
            parts += [
                (f"{ours}/sepconv{{k}}/{{part}}", f"{theirs}.separable_{size}_{{k}}.{{part}}"),
                (f"{ours}/bn{{k}}", f"{theirs}.bn_sep_{size}_{{k}}"),
                (f"{ours}/conv", f"{theirs}.1x1"),
                (f"{ours}/bn", f"{theirs}.bn_1"),
            ]
    return parts
