"""Has TensorFlow write the checkpoints of tests/weights/test_tf_checkpoints.py: `python
make_tf_checkpoints.py NETS`, installed as for make_slim_goldens.py.

They are of a MobileNet v1 as narrow as can be, of 5 classes, with the slots of its optimizer, moving
averages of what is trained, and the step; once in version 1 and once in version 2. The scores are those
with the averages.
"""

import argparse
import sys
from pathlib import Path

import draw
import make_slim_goldens
import numpy as np
import slim_rows
import tensorflow.compat.v1 as tf

DATA = Path(__file__).parent / "data" / "tf_checkpoints"
WIDTH = 1 / 128
CLASSES, STEP, SIZE = 5, 7, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", help="the folder that holds the package `nets`")
    sys.path.insert(0, parser.parse_args().nets)
    make_slim_goldens.provide_old_modules()
    tf.disable_v2_behavior()
    import tf_slim
    from nets import mobilenet_v1

    images = tf.constant(draw.images(slim_rows.IMAGES, SIZE))
    with tf_slim.arg_scope(mobilenet_v1.mobilenet_v1_arg_scope(is_training=False)):
        logits, _ = mobilenet_v1.mobilenet_v1(
            images, CLASSES, is_training=False, depth_multiplier=WIDTH, global_pool=True
        )
    step = tf.train.get_or_create_global_step()
    average = tf.train.ExponentialMovingAverage(0.99, step)
    loss = tf.reduce_mean(tf.square(logits))
    tf.train.RMSPropOptimizer(0.01, momentum=0.9).minimize(loss)  # for its slots
    averaged = average.apply(tf.trainable_variables())
    shapes = {v.op.name: tuple(v.shape.as_list()) for v in tf_slim.get_model_variables()}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        named = {variable.op.name: variable for variable in tf.global_variables()}
        for name, value in slim_rows.drawn(shapes, "").items():
            named[name].load(value, session)
        session.run(averaged)
        for name in shapes:
            shadow = f"{name}/{slim_rows.AVERAGE}"
            if shadow in named:
                named[shadow].load(session.run(named[name]) * np.float32(0.9), session)
        step.load(np.int64(STEP), session)
        for version, name in ((1, "mobilenet.ckpt"), (2, "model.ckpt-7")):
            saver = tf.train.Saver(write_version=version)
            saver.save(session, str(DATA / name), write_meta_graph=False, write_state=False)
        for name in shapes:
            shadow = f"{name}/{slim_rows.AVERAGE}"
            if shadow in named:
                named[name].load(session.run(named[shadow]), session)
        np.savez_compressed(DATA / "logits.npz", logits=session.run(logits))


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    main()
