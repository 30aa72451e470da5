import inspect
import re
import sys
import types
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.errors import InputError
from jaxnets.layers import LinearHead
from jaxnets.models import (
    Classifier,
    create_classifier,
    create_model,
    list_models,
    model_info,
    register,
    registry,
    resnet,
)
from jaxnets.models.mlp import MLP
from jaxnets.models.registry import families
from jaxnets.models.settings import Condition, Counts, checked
from jaxnets.weights import from_torch


def test_every_variant_of_every_family_is_listed_once_and_in_order():
    names = [name for family in families() for name in family.VARIANTS]
    assert list_models() == sorted(set(names))
    assert len(names) == len(set(names))


def test_list_models_takes_a_shells_pattern():
    assert list_models("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    assert list_models("vgg1[13]") == ["vgg11", "vgg13"]
    assert list_models("nothing*") == []


def test_model_is_a_classifier_that_knows_its_name():
    model = create_model("resnet18")
    assert isinstance(model, Classifier)
    assert model.model_name == "resnet18"


def test_same_arguments_give_equal_models_that_can_be_static_arguments_of_jit():
    a, b = (create_model("resnet50", num_classes=5, drop_path=0.1) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != create_model("resnet50", num_classes=6, drop_path=0.1)


@pytest.mark.parametrize(
    ("name", "classes"), [("resnet18", 1000), ("vgg11", 1000), ("lenet5", 10), ("mlp", 10)]
)
def test_number_of_classes_is_the_variants_own_unless_given(name, classes):
    assert create_model(name).num_classes == classes
    assert create_model(name, num_classes=3).num_classes == 3
    assert create_model(name, 0).num_classes == 0


@pytest.mark.parametrize("wrong", [-1, 2.5, True, "10", (10,)])
def test_wrong_number_of_classes_is_refused(wrong):
    with pytest.raises(InputError, match=r"num_classes: wanted an integer, 0 or more.*got"):
        create_model("lenet5", num_classes=wrong)


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown model 'resnet_50'; did you mean .*'resnet50'"):
        create_model("resnet_50")
    with pytest.raises(InputError, match=r"unknown model 'VGG16bn'; did you mean .*'vgg16_bn'"):
        model_info("VGG16bn")


def test_unknown_setting_is_answered_with_the_known():
    with pytest.raises(InputError, match=r"vgg11 has no setting 'small_input'; known: .*batch_norm"):
        create_model("vgg11", small_input=True)


def test_overrides_replace_the_settings_of_the_variant():
    model = create_model("resnet50", depths=[1, 2, 3], groups=2, drop_path=0.2, dropout=0)
    backbone = model.backbone
    assert (backbone.depths, backbone.groups, backbone.drop_path) == ((1, 2, 3), 2, 0.2)
    assert (backbone.block, backbone.width_per_group, model.head.dropout) == ("bottleneck", 64, 0)


@pytest.mark.parametrize(
    ("setting", "wrong", "wanted"),
    [
        ("drop_path", 1.0, r"a probability in \[0, 1\)"),
        ("drop_path", float("nan"), r"a probability in \[0, 1\)"),
        ("dropout", -0.1, r"a probability in \[0, 1\)"),
        ("dropout", True, r"a probability in \[0, 1\)"),
        ("small_input", 1, "a bool"),
        ("small_input", "yes", "a bool"),
        ("groups", 0, "an integer, 1 or more"),
        ("groups", True, "an integer, 1 or more"),
        ("groups", 2.0, "an integer, 1 or more"),
        ("depths", 3, "a tuple"),
        ("depths", (), "a tuple of at least one"),
        ("depths", (3, 4, 0, 3), "an integer, 1 or more"),
        ("block", 3, "one of 'basic', 'bottleneck'"),
        ("output_stride", 4, "one of 8, 16, 32"),
        ("output_stride", True, "one of 8, 16, 32"),
        ("epsilon", -1e-5, "a number, 0 or more"),
    ],
)
def test_override_of_another_kind_is_refused(setting, wrong, wanted):
    with pytest.raises(InputError, match=f"{setting}: wanted {wanted}.*got"):
        create_model("resnet50", **{setting: wrong})


def test_model_info_tells_what_the_command_line_shows():
    info = model_info("resnext50_32x4d")
    assert (info.name, info.family, info.num_classes) == ("resnext50_32x4d", "resnet", 1000)
    assert info.task == "classification"
    assert info.input_size == (224, 224, 3)
    assert "arXiv:1512.03385" in info.paper
    assert info.settings["groups"] == 32
    assert info.settings["drop_path"] == 0.0
    assert "num_classes" not in info.settings


@pytest.mark.parametrize("name", list_models())
def test_settings_shown_rebuild_the_model(name):
    info = model_info(name)
    assert create_model(name, info.num_classes, **info.settings) == create_model(name)


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "message"),
    [
        (int | None, None, "1", "wanted int | None"),
        (tuple[int, float], (1, 0.5), (1,), "wanted a tuple of 2"),
        (tuple[Counts, ...], ((1,), (2, 3)), ((1,), ()), "wanted a tuple of at least one"),
        (Literal["a", "b"], "a", "aa", "unknown setting 'aa'; did you mean 'a'"),
        (Literal[1, 2], 2, True, "wanted one of 1, 2; got True"),
        (Annotated[str, Condition("a short word", lambda word: len(word) < 4)], "abc", "abcd", "short"),
        (Annotated[int, "a remark"], 3, 0.5, "wanted an integer"),
    ],
)
def test_annotations_say_what_a_setting_may_be(annotation, right, wrong, message):
    assert checked("setting", right, annotation, None) == right
    with pytest.raises(InputError, match=re.escape(message)):
        checked("setting", wrong, annotation, None)


def test_settings_without_a_known_annotation_may_be_anything():
    for annotation in (Any, np.ndarray, list):
        assert checked("setting", 3, annotation, None) == 3


@pytest.fixture
def registering():
    """Families that are registered in a test are forgotten after it."""
    before = dict(registry._OWN)
    yield
    registry._OWN.clear()
    registry._OWN.update(before)


def family(name="my_family", variants=None, **others):
    """A family as a script would hold it: a module of its own."""

    def build(*, num_classes: int = 10, widths: Counts, side: int = 8) -> Classifier:
        return Classifier(
            backbone=MLP(widths),
            head=LinearHead(num_classes),
            num_classes=num_classes,
            input_size=(side, side, 1),
        )

    module = types.ModuleType(name)
    variants = variants or {"my_net": {"widths": (3,)}, "my_wide_net": {"widths": (9,)}}
    vars(module).update({"build": build, "VARIANTS": variants, "PAPER": "ours"} | others)
    return module


def test_a_registered_family_is_known_as_any_other(registering):
    renames = (("backbone/{layer}", "{layer}"), ("head/fc", "last"))
    register(family(RENAMES={"mine": renames}))
    assert list_models("my_*") == ["my_net", "my_wide_net"]
    info = model_info("my_wide_net")
    assert (info.family, info.paper, info.input_size) == ("my_family", "ours", (8, 8, 1))
    assert info.settings == {"widths": (9,), "side": 8}
    model = create_model("my_net", num_classes=2, widths=[4])
    assert (model.model_name, model.backbone.widths) == ("my_net", (4,))
    with pytest.raises(InputError, match="widths: wanted an integer, 1 or more"):
        create_model("my_net", widths=(0,))
    with pytest.raises(InputError, match="did you mean 'my_net'"):
        create_model("mynet")
    tensors = {"fc1.weight": (3, 64), "fc1.bias": (3,), "last.weight": (10, 3), "last.bias": (10,)}
    variables = from_torch("my_net", {name: np.ones(shape) for name, shape in tensors.items()})
    logits = create_model("my_net").apply(variables, jnp.ones((1, 8, 8, 1)))
    np.testing.assert_allclose(logits, np.full((1, 10), 3 * 65 + 1))


def test_models_are_listed_by_task_and_a_family_that_states_none_has_classifiers(registering):
    register(family("of_turns", {"turner": {"widths": (3,)}}, TASK="turning"))
    register(family())
    assert list_models(task="turning") == ["turner"]
    assert model_info("turner").task == "turning"
    assert list_models("my_*", task="classification") == ["my_net", "my_wide_net"]
    assert {"turner", "my_net", "resnet18"} < set(list_models())
    with pytest.raises(InputError, match="unknown task of models 'turnin'; did you mean 'turning'"):
        list_models(task="turnin")
    assert create_classifier("my_net", 0) == create_model("my_net", 0)
    with pytest.raises(InputError, match="turner is a model of turning; wanted one of classification"):
        create_classifier("turner")


def test_a_family_of_jaxnets_keeps_its_task_when_it_is_registered_again(registering, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "turning", ("of_turns",))
    monkeypatch.setitem(sys.modules, "of_turns", family("of_turns"))
    assert list_models(task="turning") == ["my_net", "my_wide_net"]
    register(family("of_turns", {"turner": {"widths": (3,)}}))
    assert list_models(task="turning") == ["turner"]


def test_a_search_for_a_model_imports_no_family_behind_its_own(registering, monkeypatch):
    register(family())
    monkeypatch.setitem(registry.FAMILIES, "detection", ("no.such.module",))
    for name in ("resnet18", "my_net"):
        assert model_info(name).name == name
    assert "zfnet" in list_models(task="classification")
    with pytest.raises(ModuleNotFoundError):
        list_models()


def test_a_script_registers_itself_and_again_when_it_is_run_again(registering):
    module = family("__main__")
    register(module)
    register(family("__main__", {"my_net": {"widths": (5,)}}))
    assert list_models("my_*") == ["my_net"]
    assert create_model("my_net").backbone.widths == (5,)
    register(sys.modules["jaxnets.models.mlp"])
    names = [family.__name__ for family in families()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (types.SimpleNamespace(PAPER=""), "lacks __name__, build, VARIANTS;"),
        (types.SimpleNamespace(__name__="mine", build=print), "mine lacks VARIANTS, PAPER;"),
        (
            family(variants={"resnet18": {"widths": (1,)}}),
            "'resnet18', and so has .*resnet;",
        ),
        (family(variants={"my_net": {"width": 3}}), "my_net sets width, which `build` does not take"),
        (family(variants={"my_net": {}}), "my_net has no value for 'widths'"),
        (family(variants={"my_net": {"widths": 3}}), "my_net: widths: wanted a tuple of at least one"),
        (family(build=lambda *, depth=1: None), "`build` of my_family does not take num_classes"),
    ],
)
def test_a_family_that_lacks_something_or_takes_a_name_is_refused(wrong, message, registering):
    before = list(families())
    with pytest.raises(InputError, match=message):
        register(wrong)
    assert before == list(families())


def test_fields_of_a_backbone_are_settings_with_their_types_and_defaults():
    signature = inspect.signature(resnet.build)
    assert list(signature.parameters)[:3] == ["num_classes", "dropout", "depths"]
    assert signature.parameters["depths"].default is inspect.Parameter.empty
    assert signature.parameters["output_stride"].default == 32
    assert signature.parameters["norm"].annotation == Literal["batch", "frozen", "group"]
    assert {"parent", "name", "settings"}.isdisjoint(signature.parameters)
