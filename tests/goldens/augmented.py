"""What augmentation is compared on: one picture, and strengths of operations as torchvision has them."""

import draw
import numpy as np

HEIGHT, WIDTH = 23, 30
MOVING = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
SIGMAS = (0.1, 0.8, 2.0)

STRENGTHS = (
    *(("shear_x", 0.09), ("shear_x", -0.99), ("shear_y", 0.297), ("shear_y", -0.09)),
    *(("translate_x", 4.07), ("translate_x", -9.9), ("translate_y", 32.0), ("translate_y", -2.0)),
    *(("rotate", 9.0), ("rotate", -30.0), ("rotate", 121.5), ("rotate", -67.5)),
    *(("brightness", 0.27), ("brightness", -0.9), ("color", 0.9), ("color", -0.27), ("color", -0.99)),
    *(("contrast", 0.27), ("contrast", -0.27), ("contrast", 0.99), ("contrast", -0.9)),
    *(
        ("sharpness", 0.27),
        ("sharpness", -0.9),
        ("sharpness", 0.99),
        ("solarize", 0.7),
        ("solarize", 0.2),
    ),
    *(("posterize", 7), ("posterize", 4), ("posterize", 2), ("autocontrast", 0.0), ("equalize", 0.0)),
    ("identity", 0.0),
)


def picture(channels: int) -> np.ndarray:
    """Noise u8[H, W, C] in which dark values are more frequent."""
    values = draw.uniform(f"picture {channels}", (HEIGHT, WIDTH, channels), 0, 1)
    return np.round(230 * values**2 + 10).astype(np.uint8)
