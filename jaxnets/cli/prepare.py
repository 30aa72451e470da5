"""`jaxnets prepare`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Prepare:
    """Write a folder of images as smaller JPEGs into files that are quick to read, for many epochs.

    Train with `--dataset records:OUTPUT`. After an interrupt or a kill, the same command continues."""

    dataset: tyro.conf.Positional[str]
    """folder:PATH."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Directory to write, in the format of TensorFlow Datasets."""
    size: int = 256
    """Maximum of the shorter side, in pixels; that of training is the quickest to read."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    processes: int | None = None
    """Processes that convert images; None for one per core."""
    strict: bool = False
    """Refuse images that cannot be read, instead of leaving them out."""

    def run(self) -> None:
        from jaxnets.data.preparing import prepare

        options = {"size": self.size, "quality": self.quality}
        try:
            done = prepare(
                self.dataset, self.output, processes=self.processes, strict=self.strict, **options
            )
        except KeyboardInterrupt:
            print("\njaxnets: interrupted; the same command continues", file=sys.stderr)
            sys.exit(130)
        for split, shards in done.splits.items():
            files = "1 file" if len(shards) == 1 else f"{len(shards)} files"
            size = sum(shard.size for shard in shards) / 2**20
            print(f"{split:<6} {sum(map(len, shards)):,} images in {files}, {size:,.1f} MiB")
        print(f"train with --dataset records:{self.output}")
