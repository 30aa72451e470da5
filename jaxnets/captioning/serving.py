"""Captioners as they are handed on."""

from jaxnets.captioning.evaluation import Writer
from jaxnets.captioning.vocabulary import END, PAD, Vocabulary
from jaxnets.runs.recipe import Run, Served


def serve(run: Run, size: tuple[int, int] | None) -> Served:
    """The best sentence by a beam search, as `jaxnets predict` says it."""
    vocabulary, length = Vocabulary.load(run.directory), run.config.caption_length
    writer = Writer([(run.task, run.variables)], length=length)
    height, width, channels = (*(size or run.about["image_shape"][:2]), run.about["image_shape"][2])
    scaled = f"scaled to {min(height, width)} (bilinear, with antialiasing)"
    return Served(
        run=lambda variables, pixels: writer.predict(variables, {"image": pixels}).tokens[:, 0],
        variables=writer.variables,
        image_shape=(height, width, channels),
        name=run.config.captioner,
        images=f"the middle of a picture whose shorter side is {scaled}",
        outputs=f"tokens i32[N, {length}]: numbers of words, the end and padding",
        about={"words": vocabulary.words, "end": END, "padding": PAD},
    )
