"""Every family file by its task: the second line that a new task adds, behind that in `jaxnets.recipes`.

A family's module is imported when a model of it is asked for, so that its task may import the models.
"""

FAMILIES = {
    "classification": (
        "jaxnets.models.alexnet",
        "jaxnets.models.densenet",
        "jaxnets.models.dpn",
        "jaxnets.models.fractalnet",
        "jaxnets.models.googlenet",
        "jaxnets.models.highway",
        "jaxnets.models.inception_resnet_v2",
        "jaxnets.models.inception_v2",
        "jaxnets.models.inception_v3",
        "jaxnets.models.inception_v4",
        "jaxnets.models.lenet",
        "jaxnets.models.mlp",
        "jaxnets.models.mobilenet_v1",
        "jaxnets.models.mobilenet_v2",
        "jaxnets.models.mobilenet_v3",
        "jaxnets.models.nasnet",
        "jaxnets.models.nin",
        "jaxnets.models.pnasnet",
        "jaxnets.models.polynet",
        "jaxnets.models.resnet",
        "jaxnets.models.resnetv2",
        "jaxnets.models.senet",
        "jaxnets.models.squeezenet",
        "jaxnets.models.vgg",
        "jaxnets.models.vit",
        "jaxnets.models.xception",
        "jaxnets.models.xception_aligned",
        "jaxnets.models.zfnet",
    ),
    "detection": (
        "jaxnets.detection.faster_rcnn",
        "jaxnets.detection.retinanet",
        "jaxnets.detection.fcos",
    ),
    "segmentation": (
        "jaxnets.segmentation.deeplabv2",
        "jaxnets.segmentation.deeplabv3",
        "jaxnets.segmentation.deeplabv3plus",
        "jaxnets.segmentation.fcn",
        "jaxnets.segmentation.fcn_vgg",
        "jaxnets.segmentation.lraspp",
        "jaxnets.segmentation.refinenet",
        "jaxnets.segmentation.segnet",
        "jaxnets.segmentation.unet",
    ),
}

CLASSIFIERS = "classification"
"""The task whose models are classifiers, the backbones of everything else; that of a registered family
that states none."""
