"""Trains a small U-Net on scenes, from scratch, and draws what it says of one of them.

Command: python experiments/segment_scenes.py
Result:  mIoU of 0.82 over background and ten digits on held-out scenes after 2500 of its 4000 steps,
         seed 0 (benchmarks/segmentation_scenes.md has more); draws labels.png
"""

from jaxnets import Segmentation, create_segmenter, segmentation, training
from jaxnets.data.scenes import SceneSource

BATCH, STEPS, SIZE = 8, 4000, 80

if __name__ == "__main__":
    scenes = {"size": SIZE, "objects": 8, "segmentation": True}
    train, test = SceneSource(count=BATCH * STEPS, **scenes), SceneSource("test", count=500, **scenes)
    segmenter = create_segmenter(
        "unet",
        backbone="resnetv2_50",
        num_classes=11,
        backbone_settings={
            "block": "basic",
            "depths": (4,),
            "widths": (64,),
            "stem_width": 32,
        },
        widths=(32, 12),
    ).clone(class_names=test.class_names)
    task = Segmentation(segmenter, loss_name="cross_entropy+dice")
    rate = training.create_schedule("cosine", 1e-3, STEPS, warmup_steps=STEPS // 20)
    optimizer = training.create_optimizer("adamw", rate, weight_decay=0.05, clip_norm=5.0)
    state, _ = training.fit(task, train, optimizer=optimizer, epochs=1, batch_size=BATCH)
    print(training.evaluate(task, state.variables, test, batch_size=50))
    picture = test[0]["image"]
    (labels,) = segmentation.segment(segmenter, state.variables, [picture])
    segmentation.draw(picture, labels, "labels.png", segmenter.class_names)
