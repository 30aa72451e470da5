import pytest

from jaxnets.errors import InputError
from jaxnets.models import Classifier, create_model, list_models, model_info
from jaxnets.models.registry import FAMILIES


def test_every_variant_of_every_family_is_listed_once_and_in_order():
    names = [name for family in FAMILIES for name in family.VARIANTS]
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
        ("block", 3, "a str"),
    ],
)
def test_override_of_another_kind_is_refused(setting, wrong, wanted):
    with pytest.raises(InputError, match=f"{setting}: wanted {wanted}.*got"):
        create_model("resnet50", **{setting: wrong})


def test_model_info_tells_what_the_command_line_shows():
    info = model_info("resnext50_32x4d")
    assert (info.name, info.family, info.num_classes) == ("resnext50_32x4d", "resnet", 1000)
    assert info.input_size == (224, 224, 3)
    assert "arXiv:1512.03385" in info.paper
    assert info.settings["groups"] == 32
    assert info.settings["drop_path"] == 0.0
    assert "num_classes" not in info.settings


@pytest.mark.parametrize("name", list_models())
def test_settings_shown_rebuild_the_model(name):
    info = model_info(name)
    assert create_model(name, info.num_classes, **info.settings) == create_model(name)
