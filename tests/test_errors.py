"""What a mistake is answered with."""

import pytest

from jaxnets.errors import InputError, unknown_name


def test_an_input_error_is_a_value_error():
    with pytest.raises(ValueError, match="too many"):
        raise InputError("too many")


def test_an_unknown_name_is_answered_with_the_nearest_one():
    error = unknown_name("model", "resnet5", ["vgg16", "lenet5", "resnet50"])
    assert isinstance(error, InputError)
    # `lenet5` is near too; the nearest comes first.
    assert str(error) == "unknown model 'resnet5'; did you mean 'resnet50' or 'lenet5'?"


def test_case_does_not_hide_the_nearest_name():
    text = str(unknown_name("optimizer", "ADAM", ["sgd", "adam"]))
    assert text == "unknown optimizer 'ADAM'; did you mean 'adam'?"


def test_no_more_than_three_names_are_offered():
    text = str(unknown_name("model", "vgg", [f"vgg{depth}" for depth in range(11, 20)]))
    assert text.count("'vgg1") == 3


def test_where_no_name_is_near_all_are_listed_in_order():
    known = (name for name in ("sgd", "lars", "adam"))  # read once, sorted nowhere
    assert str(unknown_name("optimizer", "qqqq", known)) == (
        "unknown optimizer 'qqqq'; known: adam, lars, sgd"
    )
