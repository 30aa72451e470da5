"""`jaxnets features`: what a model makes of the images of a dataset, for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxnets.config import newest_run
from jaxnets.errors import InputError
from jaxnets.ranges import COUNTS, refuse_outside


@dataclass(frozen=True)
class Features:
    """Write the features of a dataset's images into a file, a row an image, for other programs.

    Rows have the file of the image, its split (train, val, test) and its label, in the order of the
    files."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write: .npz, .csv or .parquet (with pandas)."""
    model: tyro.conf.Positional[str | None] = None
    """Directory of a run, or a pretrained model as NAME, NAME=SOURCE or SOURCE; None for the newest run
    under runs/."""
    pretrained: str | None = None
    """A pretrained model, or a run; the same as the word before."""
    dataset: str | None = None
    """digits, folder:PATH, csv:PATH, records:PATH, tfds:NAME ...; None for that of the run."""
    split: str | None = None
    """Part of the dataset: train, val or test; None for all images."""
    layer: str | None = None
    """A feature map: stage1 ...; None for the last, which the head reads."""
    pool: bool = True
    """Take the mean over the places of the map."""
    checkpoint: Literal["latest", "best"] | int = "latest"
    """Which of the run's checkpoints; a number is that of its step."""
    batch_size: int = 128
    """Images at a time, over all devices."""
    strict: bool = False
    """Refuse an unreadable image, instead of leaving it out."""

    def run(self) -> None:
        from jaxnets import extraction

        refuse_outside("batch_size", self.batch_size, COUNTS)
        if self.model is not None and self.pretrained is not None:
            raise InputError(f"pretrained: {self.model} is given already; leave out one of the two")
        extraction.check_output(self.output)
        found = extraction.extract_features(
            self.model or self.pretrained or newest_run(),
            self.dataset,
            self.layer,
            pool=self.pool,
            split=self.split,
            strict=self.strict,
            checkpoint=self.checkpoint,
            batch_size=self.batch_size,
        )
        found.save(self.output)
        shape = " x ".join(map(str, found.features.shape[1:]))
        print(f"{self.output}: {len(found.features):,} images, {shape} numbers each")
