"""`jaxnets export`: a model as a program that runs without jaxnets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxnets.config import newest_run


@dataclass(frozen=True)
class Export:
    """Write a trained model, or a pretrained one, as a program that needs jax alone, for any platform.

    It takes uint8 images of a fixed size, any number at a time, and gives probabilities, captions, boxes
    or label maps: normalization is inside, reading and scaling pictures is not. OUTPUT.json says the
    rest. Run it by `jaxnets.load_exported(OUTPUT)(images)`, or without jaxnets by
    `jax.export.deserialize(open(OUTPUT, "rb").read()).call(images)`."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write: classifier.bin, say."""
    model: tyro.conf.Positional[str | None] = None
    """Directory of a run, or a pretrained model as NAME, NAME=SOURCE or SOURCE; None for the newest run
    under runs/."""
    size: tuple[int, int] | None = None
    """Height and width of the images; None for what the model was trained on or made for."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """Which of the run's checkpoints; a number is that of its step."""

    def run(self) -> None:
        from jaxnets.exporting import export_model

        model = self.model or newest_run()
        about = export_model(model, self.output, size=self.size, checkpoint=self.checkpoint).about
        shape = ", ".join(map(str, about["image_shape"]))
        print(f"{self.output}: images uint8[N, {shape}]: {about['images']}")
        print(f"to {about['outputs']}")
        print(f"for {', '.join(about['platforms'])}; {self.output}.json says the rest")
