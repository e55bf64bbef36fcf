import pytest

from femur3d.errors import InputError, UsageError
from femur3d.evaluation.label_roles import LabelRoles, label_roles, roles_of_references


@pytest.mark.parametrize(
    "name",
    [
        "femur",
        "femur_left",
        "FemurR",
        "Proximal Femur",
        "Fémur droit",
        "left-femurs",
        "femoral_head",
        "Oberschenkelknochen",
    ],
)
def test_names_of_femurs(name):
    assert label_roles({"background": 0, name: 3}).femurs == (3,)


@pytest.mark.parametrize(
    "name",
    [
        "acetabulum",
        "femoral_artery",
        "femoral_cartilage",
        "femur_implant",
        "femur and pelvis",
        "not femur",
        "tibia",
        "1",
        "",
    ],
)
def test_names_of_what_is_no_femur_are_refused(name):
    with pytest.raises(InputError, match="do not say femur") as caught:
        label_roles({"background": 0, "femur": 1, name: 2})
    assert repr(name) in str(caught.value)
    assert "--femur_labels=femur" in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_ignore_is_never_learnt():
    labels = {"background": 0, "femur_left": 1, "femur_right": 2, "ignore": 3}
    assert label_roles(labels) == LabelRoles((1, 2), ("femur_left", "femur_right"), 3, {})
    with pytest.raises(UsageError, match="no label 'ignore'"):
        label_roles(labels, ["ignore"])


def test_the_setting_says_what_is_learnt():
    labels = {"background": 0, "Knochen": 1, "acetabulum": 2}
    assert label_roles(labels, ["Knochen"]) == LabelRoles((1,), ("Knochen",), None, {"acetabulum": 2})
    with pytest.raises(UsageError, match="no label 'bone'"):
        label_roles(labels, ["bone"])


def test_a_dataset_without_femurs():
    with pytest.raises(InputError, match="none but 'background'"):
        label_roles({"background": 0, "ignore": 1})


@pytest.mark.parametrize(
    ("labels", "sides"),
    [
        ({"femur_left": 1, "femur_right": 2}, {1: 1, 2: 2}),
        ({"femur_right": 1, "femur_left": 2}, {1: 2, 2: 1}),
        ({"FemurR": 3, "FemurL": 1}, {3: 2, 1: 1}),
        ({"Fémur droit": 4}, {4: 2}),
        ({"femur": 2, "acetabulum": 1, "ignore": 3}, {2: 1}),
        ({"femur a": 7, "femur b": 2}, {7: 2, 2: 1}),
        ({"femur_head_left": 1, "femur_shaft_left": 2, "femur_right": 3}, {1: 1, 2: 1, 3: 2}),
        ({"hip_l": 1, "hip_r": 2}, {1: 1, 2: 2}),  # no name says femur: all are
    ],
)
def test_sides_by_the_names(labels, sides):
    roles = roles_of_references(labels)
    assert roles.sides() == sides
    assert roles.known() == {0: "background", **{value: name for name, value in labels.items()}}
