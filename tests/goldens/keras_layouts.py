"""What torch calls the variables of Keras's layers, and the order of their axes there."""

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
}


def axes_in_torch(kind: str, leaf: str, rank: int) -> tuple[int, ...]:
    """Which axis of a variable of Keras's comes first in torch, which second, ...; `kind` is the class
    of its layer."""
    if rank == 4:
        depthwise = leaf == "depthwise_kernel" or kind == "DepthwiseConv2D"
        return (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    return (1, 0) if rank == 2 else tuple(range(rank))
