"""Pictures of what networks do, and of why."""

from jaxnets.explain.activations import feature_maps, filters, receptive_field
from jaxnets.explain.attention import plot_attention
from jaxnets.explain.convolution_matrix import show_im2col
from jaxnets.explain.curves import plot_curves
from jaxnets.explain.deconvnet import Projection, deconvnet, top_images
from jaxnets.explain.grad_cam import grad_cam
from jaxnets.explain.gradients import guided_backprop, integrated_gradients, saliency, smoothgrad
from jaxnets.explain.mistakes import Mistake, plot_confusion, plot_mistakes
from jaxnets.explain.modules import ReceptiveField, Row
from jaxnets.explain.occlusion import occlusion
from jaxnets.explain.ratios import plot_layer_ratios
from jaxnets.explain.search_picture import plot_search
from jaxnets.explain.show import (
    show_attributions,
    show_deconvnet,
    show_feature_maps,
    show_filters,
    show_receptive_field,
)
from jaxnets.explain.summary import Summary, summary
from jaxnets.explain.tracing import layer_shapes
from jaxnets.layers import conv_by_im2col, im2col

__all__ = [
    "Mistake",
    "Projection",
    "ReceptiveField",
    "Row",
    "Summary",
    "conv_by_im2col",
    "deconvnet",
    "feature_maps",
    "filters",
    "grad_cam",
    "guided_backprop",
    "im2col",
    "integrated_gradients",
    "layer_shapes",
    "occlusion",
    "plot_attention",
    "plot_confusion",
    "plot_curves",
    "plot_layer_ratios",
    "plot_mistakes",
    "plot_search",
    "receptive_field",
    "saliency",
    "show_attributions",
    "show_deconvnet",
    "show_feature_maps",
    "show_filters",
    "show_im2col",
    "show_receptive_field",
    "smoothgrad",
    "summary",
    "top_images",
]
