from jaxnets.models import create_model


def test_parameter_count(count_parameters):
    assert count_parameters("inception_v4") == 42_679_816


def test_maps_at_299_are_those_of_the_papers_figure_9(map_sizes):
    stem = {"conv2b": (147, 64), "mixed3a": (73, 160), "mixed4a": (71, 192), "mixed5a": (35, 384)}
    assert map_sizes("inception_v4") == {
        **stem,
        **{f"inception_a{i}": (35, 384) for i in (1, 2, 3, 4)},
        "reduction_a": (17, 1024),
        **{f"inception_b{i}": (17, 1024) for i in (1, 2, 3, 4, 5, 6, 7)},
        "reduction_b": (8, 1536),
        **{f"inception_c{i}": (8, 1536) for i in (1, 2, 3)},
    }
