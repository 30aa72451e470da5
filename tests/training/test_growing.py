"""Images grow with the epochs: by which sides, and to Pillow's pixels."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from jaxnets import Classification, create_model, data
from jaxnets.training import DataParallel, fit
from jaxnets.training.growing import growing_sides, in_epoch


def test_sides_rise_in_at_most_four_stages_and_end_at_the_last():
    assert growing_sides(128, 224, 8) == [128, 128, 160, 160, 192, 192, 224, 224]
    assert growing_sides(16, 32, 3) == [16, 24, 32]
    assert growing_sides(16, 32, 1) == [32]
    assert len(set(growing_sides(100, 199, 50))) == 4


@pytest.mark.parametrize("strategy", ["single", "pmap"])
def test_a_batch_on_its_devices_is_scaled_down_as_by_pillow(strategy):
    parallel = DataParallel.create(strategy, jax.devices()[:2])
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 20, 3), dtype=np.uint8)
    batch = parallel.put({"image": images, "label": np.arange(4)})
    small = in_epoch(batch, [8, 16], 0)
    found = np.asarray(small["image"]).reshape(4, 8, 10, 3)
    wanted = [np.asarray(Image.fromarray(image).resize((10, 8), Image.BILINEAR)) for image in images]
    assert np.max(abs(found.astype(int) - np.stack(wanted))) <= 1
    assert found.dtype == np.uint8
    assert small["image"].sharding == batch["image"].sharding
    np.testing.assert_array_equal(in_epoch(batch, [8, 16], 5)["image"], batch["image"])


@dataclasses.dataclass(frozen=True)
class Seen(Classification):
    """Notes the sides that it is traced with."""

    def loss(self, variables, batch, key):
        SIDES.append(batch["image"].shape[1])
        return super().loss(variables, batch, key)


SIDES = []


@pytest.mark.slow
def test_a_run_trains_on_growing_images_and_resumes_to_the_same_bits(one_device, tmp_path):
    model = create_model("resnet18", num_classes=2, depths=(1, 1, 1, 1), small_input=True)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    source = data.ArraySource(images, np.arange(8) % 2, ("a", "b"))

    def run(**options):
        SIDES.clear()
        return fit(
            Seen(model),
            source,
            optimizer=optax.sgd(0.01),
            epochs=2,
            batch_size=4,
            sides=[8, 16],
            parallel=one_device,
            progress=False,
            **options,
        )[0]

    whole = run()
    assert {8, 16} == set(SIDES)
    run(directory=tmp_path, stop=lambda step: step == 3)
    jax.tree.map(np.testing.assert_array_equal, run(directory=tmp_path, resume=True), whole)
