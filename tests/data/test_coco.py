"""Images with objects in COCO's format."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxnets import data
from jaxnets.data.coco_files import by_split
from jaxnets.errors import InputError
from jaxnets.metrics.detection import coco


def content(count=5, **changes):
    """Pictures of 40 x 20 (width x height), each with the box (4, 2, 14, 12) of category 7."""
    images = [
        {"id": n, "file_name": f"{n:04}.png", "height": 20, "width": 40} for n in range(1, 1 + count)
    ]
    annotations = [annotation(n) for n in range(1, 1 + count)]
    categories = [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}]
    return {"images": images, "categories": categories, "annotations": annotations} | changes


def annotation(image, bbox=(4, 2, 10, 10), **more):
    left, top, width, height = bbox
    corners = [left, top, left + width, top, left + width, top + height, left, top + height]
    more = {"category_id": 7, "segmentation": [corners]} | more
    return {"id": 1, "image_id": image, "bbox": list(bbox), "area": 55.5, "iscrowd": 0} | more


def write(root, told, name="instances.json", folder="."):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in told["images"]:
        Image.new("RGB", (40, 20), (0, image["id"], 0)).save(root / folder / image["file_name"])
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(told))


def pair(root, told):
    """Writes what is told as the training set, beside one image to measure by."""
    write(root, told, "instances_train.json")
    write(
        root,
        content(1, images=[{**content()["images"][0], "file_name": "val.png"}]),
        "instances_val.json",
    )


def load(root, **options):
    return data.load(f"coco:{root}", **{"size": (30, 20), "boxes": 3} | options)


def test_coco_as_it_is_unpacked(tmp_path):
    write(tmp_path, content(), "annotations/instances_train2017.json", "train2017")
    write(tmp_path, content(2), "annotations/instances_val2017.json", "val2017")
    (tmp_path / "annotations/captions_val2017.json").write_text("{}")
    dataset = load(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (5, 2)
    assert dataset.class_names == ("three", "seven")
    assert dataset.image_shape == (30, 20, 3)
    assert dataset.train.picture(3) == str(tmp_path / "train2017/0004.png")


def test_a_picture_fills_the_upper_left_of_the_canvas_and_its_boxes_go_with_it(tmp_path):
    annotations = [annotation(1, iscrowd=1), annotation(1, (0, 0, 40, 20), category_id=3)]
    pair(tmp_path, content(annotations=annotations))
    example = load(tmp_path).train[0]
    assert (example["image"][:10, :, 1] == 1).all()  # 40 x 20 becomes 20 x 10
    assert not example["image"][10:].any()
    assert example["size"].tolist() == [10, 20]
    assert example["ratio"].tolist() == [0.5, 0.5]
    assert example["box"].tolist() == [[0, 0, 20, 10], [2, 1, 7, 6], [0, 0, 0, 0]]  # the crowd is last
    assert example["label"].tolist() == [0, 1, 0]
    assert example["valid"].tolist() == [True, True, False]
    assert example["crowd"].tolist() == [False, True, False]
    assert example["area"].tolist() == [55.5, 55.5, 0]
    types = {name: str(value.dtype) for name, value in example.items()}
    assert types == {
        "image": "uint8", "size": "int32", "ratio": "float32", "box": "float32", "label": "int32",
        "area": "float32", "valid": "bool", "crowd": "bool", "difficult": "bool",
    }  # fmt: skip


def test_of_a_single_file_a_fifth_is_held_out_and_images_without_objects_stay(tmp_path):
    write(tmp_path, content(10, annotations=[annotation(3)]), folder="images")
    dataset = load(tmp_path)
    assert (len(dataset.train), len(dataset.test), len(dataset.split("all"))) == (8, 2, 10)
    parts = [
        part.truth(i)["labels"].tolist()
        for part in (dataset.train, dataset.test)
        for i in range(len(part))
    ]
    assert sorted(parts) == [[]] * 9 + [[1]]


def test_truths_are_in_pixels_of_the_file_and_as_they_are_annotated(tmp_path, caplog):
    annotations = [annotation(2, (30.25, 5, 20, 10)), annotation(2, (3, 3, 0, 5)), annotation(1)]
    pair(tmp_path, content(annotations=annotations))
    source = load(tmp_path).train
    truth = source.truth(1)
    assert truth["boxes"].tolist() == [[30.25, 5, 50.25, 15], [3, 3, 3, 8]]
    assert truth["area"].tolist() == [55.5, 55.5]
    example = source[1]
    assert example["box"][0].tolist() == [15.125, 2.5, 20, 7.5]
    assert example["valid"].sum() == 1
    assert "1 boxes reach out of their picture and are clipped, the first in" in caplog.text
    assert "1 boxes have no area in their picture and are left out of training" in caplog.text


def test_masks_of_polygons_and_run_lengths(tmp_path):
    whole = np.zeros((20, 40), np.uint8, order="F")
    whole[5:10, 8:20] = 1
    packed = rle.encode(whole)
    counts = [5 + 20 * 8] + [5, 15] * 11 + [5, 10 + 20 * 20]
    annotations = [
        annotation(1, (8, 5, 12, 5)),
        annotation(1, segmentation={"size": [20, 40], "counts": packed["counts"].decode()}),
        annotation(1, segmentation={"size": [20, 40], "counts": counts}, iscrowd=1),
        annotation(
            2, segmentation=[[1, 1, 30, 9], [0, 0, 4, 0, 4, 4, 0, 4], [10, 0, 14, 0, 14, 4, 10, 4]]
        ),
    ]
    pair(tmp_path, content(annotations=annotations))
    source = pickle.loads(pickle.dumps(load(tmp_path, masks=True).train))
    for mask in source.truth(0)["masks"]:
        np.testing.assert_array_equal(mask, whole)
    two = source.truth(1)["masks"][0]
    assert two.sum() == 32
    assert two[:4, :4].all()
    assert two[:4, 10:14].all()
    example = source[0]
    assert example["mask"].shape == (3, 30, 20)
    for mask in example["mask"]:
        np.testing.assert_array_equal(mask[:10], whole[1::2, 1::2])
        assert not mask[10:].any()
    assert source.truth(2)["masks"].shape == (0, 20, 40)
    assert not source[2]["mask"].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": None}, "not in COCO's format of instances"),
        ({"annotations": [{"image_id": 1, "caption": "a cat"}]}, "not in COCO's format .*'category_id'"),
        ({"annotations": [annotation(1) | {"bbox": [1, 2, 3]}]}, "not in COCO's format"),
        ({"annotations": [annotation(1, (0, 0, float("nan"), 1))]}, "bbox .*finite"),
        ({"images": content()["images"] + content(1)["images"]}, "two images of id 1;"),
        ({"categories": [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]}, "two categories of id 7;"),
        ({"annotations": [annotation(99)]}, "annotation of image_id 99, but no image"),
        (
            {"annotations": [annotation(1, category_id=8)]},
            "annotation of category_id 8, but no category",
        ),
        ({"annotations": [annotation(2)] * 4}, "0002.png has 4 objects, and boxes is 3; raise it to 4"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_in_a_line_or_two(tmp_path, changes, words):
    pair(tmp_path, content(**changes))
    with pytest.raises(InputError, match=words) as raised:
        load(tmp_path)
    assert str(raised.value).count("\n") < 2


def test_crowds_and_boxes_without_area_take_no_room(tmp_path):
    odd = [annotation(1, iscrowd=1), annotation(1, (0, 0, 0, 5)), annotation(1, iscrowd=1)]
    pair(tmp_path, content(annotations=odd + [annotation(1)] * 3))
    example = load(tmp_path).train[0]
    assert example["valid"].all()
    assert not example["crowd"].any()


def test_images_that_are_missing_or_of_another_size_are_told(tmp_path, caplog):
    told = content()
    told["images"][2]["height"] = 21
    pair(tmp_path, told)
    source = load(tmp_path).train
    assert source[2]["weight"] == 0
    assert "it is 20 x 40 (height x width), and its annotations are of 21 x 40" in caplog.text
    batch = data.dataset.read_batch(source, np.arange(5))
    assert batch["weight"].tolist() == [1, 1, 0, 1, 1]
    (tmp_path / "0005.png").unlink()
    with pytest.raises(InputError, match="names the image 0005.png, which is in none of"):
        load(tmp_path)


def test_splits_of_other_categories_are_refused(tmp_path):
    write(tmp_path, content(), "instances_train.json")
    write(tmp_path, content(categories=[{"id": 7, "name": "other"}]), "instances_val.json")
    with pytest.raises(
        InputError, match="instances_val.json has other categories than .*: other, seven"
    ):
        load(tmp_path)


def test_without_masks_a_segmentation_is_not_looked_at(tmp_path):
    pair(tmp_path, content(annotations=[annotation(1, segmentation=[[1, 2]])]))
    load(tmp_path)
    with pytest.raises(InputError, match="segmentation of annotation 1 .* load without masks"):
        load(tmp_path, masks=True)


@pytest.mark.parametrize("size", [0, "4", (3,), (3, 0)])
def test_a_canvas_has_a_height_and_a_width(tmp_path, size):
    write(tmp_path, content())
    with pytest.raises(InputError, match="size"):
        load(tmp_path, size=size)


def test_a_folder_of_captions_alone_has_no_instances(tmp_path):
    (tmp_path / "captions.json").write_text("{}")
    with pytest.raises(InputError, match="holds no instances"):
        by_split(tmp_path, "instances")


def test_what_is_around_pictures_is_not_in_their_statistics(tmp_path):
    pair(tmp_path, content())
    mean, _ = data.channel_statistics(load(tmp_path).train)
    np.testing.assert_allclose(mean * 255, [0, 3, 0], atol=1e-4)  # of 1 to 5


@pytest.mark.parametrize(("kind", "iou_type"), [("box", "bbox"), ("mask", "segm")])
def test_truths_of_a_file_are_measured_as_pycocotools_measures_it(tmp_path, capsys, kind, iou_type):
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in rng.integers(1, 6, 40).tolist():
        bbox = [*rng.uniform(0, 25, 2), *rng.uniform(2, 15, 2)]
        own = annotation(image, bbox, category_id=int(rng.choice([3, 7])), id=len(annotations) + 1)
        own["area"] = float(rng.choice([500, 1500, 9216]))
        if rng.random() < 0.2:
            mask = np.asfortranarray(rng.random((20, 40)) < 0.3, np.uint8)
            packed = rle.encode(mask)
            packed["counts"] = packed["counts"].decode()
            own |= {"iscrowd": 1, "segmentation": packed}
        annotations.append(own)
        moved = (np.array(bbox) + rng.normal(0, 1, 4)).clip(1, 30).tolist()
        score = {"score": float(rng.random())}
        results.append(annotation(image, moved, category_id=own["category_id"]) | score)
    pair(tmp_path, content(annotations=annotations))
    source = load(tmp_path, masks=True, boxes=40).train

    file = COCO(str(tmp_path / "instances_train.json"))
    packed = [rle.merge(rle.frPyObjects(own["segmentation"], 20, 40)) for own in results]
    theirs = [
        {name: own[name] for name in ("image_id", "category_id", "score")}
        | ({"bbox": own["bbox"]} if kind == "box" else {"segmentation": mask})
        for own, mask in zip(results, packed, strict=True)
    ]
    wanted = COCOeval(file, file.loadRes(theirs), iou_type)
    for step in (wanted.evaluate, wanted.accumulate, wanted.summarize):
        step()

    found = []
    for index in range(len(source)):
        rows = [row for row, own in enumerate(results) if own["image_id"] == index + 1]
        boxes = np.array([results[row]["bbox"] for row in rows]).reshape(-1, 4)
        found.append(
            {
                "boxes": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
                "scores": [results[row]["score"] for row in rows],
                "labels": [[3, 7].index(results[row]["category_id"]) for row in rows],
                "masks": [rle.decode(packed[row]) for row in rows],
            }
        )
    got = coco(found, [source.truth(index) for index in range(len(source))], kind)
    assert 0.05 < got["AP"] < 0.95
    np.testing.assert_allclose(list(got.values()), wanted.stats, atol=1e-9)
