"""Building blocks of the networks, one idea a file. Parameters are named and laid out as Flax's."""

from flax.linen.initializers import he_normal, he_uniform, xavier_normal, xavier_uniform

from jaxnets.layers.activations import (
    PReLU,
    elu,
    glu,
    leaky_relu,
    maxout,
    relu,
    relu6,
    sigmoid,
    tanh,
)
from jaxnets.layers.attention import NonLocalBlock, SqueezeExcite
from jaxnets.layers.convolution import (
    Conv,
    ConvTranspose,
    MaskedConv,
    SeparableConv,
    causal_mask,
    conv_by_im2col,
    im2col,
)
from jaxnets.layers.geometry import full_padding, same_padding
from jaxnets.layers.heads import ConfidenceMapHead, LinearHead, MLPHead
from jaxnets.layers.learned_pooling import GatedPool, MixedPool, TreePool
from jaxnets.layers.lowering import conv_general_dilated, lowering
from jaxnets.layers.normalization import (
    DATA_AXIS,
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    axis_is_bound,
    local_response_norm,
)
from jaxnets.layers.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    spatial_pyramid_pool,
)
from jaxnets.layers.recurrent import GRU, LSTM, RNN, Recurrent
from jaxnets.layers.regularization import (
    DropConnect,
    Dropout,
    DropPath,
    drop_path_rates,
    l1_penalty,
    l2_penalty,
)

__all__ = [
    "DATA_AXIS",
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm",
    "ConfidenceMapHead",
    "Conv",
    "ConvTranspose",
    "DropConnect",
    "DropPath",
    "Dropout",
    "GatedPool",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LinearHead",
    "MLPHead",
    "MaskedConv",
    "MixedPool",
    "NonLocalBlock",
    "PReLU",
    "Recurrent",
    "SeparableConv",
    "SqueezeExcite",
    "TreePool",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "axis_is_bound",
    "causal_mask",
    "conv_by_im2col",
    "conv_general_dilated",
    "drop_path_rates",
    "elu",
    "full_padding",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "he_normal",
    "he_uniform",
    "im2col",
    "l1_penalty",
    "l2_penalty",
    "leaky_relu",
    "local_response_norm",
    "lowering",
    "lp_pool",
    "max_pool",
    "maxout",
    "relu",
    "relu6",
    "same_padding",
    "sigmoid",
    "spatial_pyramid_pool",
    "tanh",
    "xavier_normal",
    "xavier_uniform",
]
