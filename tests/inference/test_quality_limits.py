"""Levels, limits learnt from good scans, and the file that holds them."""

import json
import os

import pytest

from femur3d.errors import InputError
from femur3d.inference import quality
from femur3d.inference.quality_limits import (
    KINDS,
    Flag,
    Limit,
    excess,
    flags,
    learn_limits,
    read_limits,
    suspicion,
    write_limits,
)

LIMITS = {"uncertain_share": Limit(0.1, 0.2, 0.3), "side_ratio": Limit(0.9, 0.8, 0.7)}


def test_every_measure_has_its_words():
    assert list(KINDS) == list(quality.NAMES)
    for name, flag in flags(dict.fromkeys(KINDS, 1.0), {}).items():
        assert "1" in flag.sentence, name
        assert "{" not in flag.sentence


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("uncertain_share", 0.0, "green"),
        ("uncertain_share", 0.2, "green"),
        ("uncertain_share", 0.21, "yellow"),
        ("uncertain_share", 0.3, "yellow"),
        ("uncertain_share", 0.31, "red"),
        ("side_ratio", 1.0, "green"),
        ("side_ratio", 0.8, "green"),
        ("side_ratio", 0.75, "yellow"),
        ("side_ratio", 0.5, "red"),
        ("fragments", 99.0, "unknown"),
    ],
)
def test_levels(name, value, level):
    found = flags({name: value}, LIMITS)
    assert list(found) == [name]
    assert (found[name].value, found[name].level) == (value, level)


def test_sentences():
    found = flags({"side_ratio": 0.5, "fragments": 3.0}, LIMITS)
    assert found["fragments"] == Flag(3.0, "unknown", "3 larger pieces beside the femurs were removed.")
    said = "The smaller femur has 50% of the larger one's volume (median 90%, red below 70%)."
    assert found["side_ratio"].sentence == said


def test_suspicion_is_that_of_the_worst_measure():
    assert suspicion({"uncertain_share": 0.1, "side_ratio": 0.9}, LIMITS) == pytest.approx(0)
    assert suspicion({"uncertain_share": 0.2, "side_ratio": 0.9}, LIMITS) == pytest.approx(0.5)
    assert suspicion({"uncertain_share": 0.2, "side_ratio": 0.6}, LIMITS) == pytest.approx(1.5)
    assert suspicion({"fragments": 9.0}, LIMITS) == 0
    assert suspicion({"uncertain_share": 0.3001}, LIMITS) > 1 > suspicion({"uncertain_share": 0.2999}, LIMITS)


def test_limits_are_learnt_from_good_scans():
    values = [0.10, 0.20, 0.30, 0.50, 0.10]  # median 0.2, most suspicious 0.5; the resolution is 0.02
    limit = learn_limits({"uncertain_share": value} for value in values)["uncertain_share"]
    assert limit == Limit(0.2, pytest.approx(0.51), pytest.approx(0.66))
    values = [120.0, 100.0, 140.0]  # low is bad; the resolution is 5 ml
    limit = learn_limits({"smallest_volume_ml": value} for value in values)["smallest_volume_ml"]
    assert limit == Limit(120.0, pytest.approx(97.5), pytest.approx(87.5))


def test_limits_where_all_good_scans_are_alike():
    limits = learn_limits([{"missing_femurs": 0.0, "fragments": 0.0}] * 3)
    assert limits == {"missing_femurs": Limit(0.0, 0.25, 0.5), "fragments": Limit(0.0, 0.5, 1.0)}
    assert flags({"missing_femurs": 1.0}, limits)["missing_femurs"].level == "red"


def test_no_good_scan_is_flagged_and_worse_is_never_greener():
    good = [{name: 10.0 + i for name in KINDS} for i in range(4)]
    limits = learn_limits(good)
    assert {flag.level for measures in good for flag in flags(measures, limits).values()} == {"green"}
    order = ["green", "yellow", "red"]
    for name, limit in limits.items():
        step = excess(name, 1.0, 0.0) * (abs(limit.red - limit.median) / 4)
        levels = [flags({name: limit.median + i * step}, limits)[name].level for i in range(8)]
        assert levels == sorted(levels, key=order.index)
        assert set(levels) == set(order), name


def test_file_round_trip(tmp_path):
    assert read_limits(tmp_path) == {}
    write_limits(tmp_path, LIMITS, "two scans")
    assert read_limits(tmp_path) == LIMITS
    assert json.loads((tmp_path / "quality.json").read_text())["learnt_on"] == "two scans"


def test_the_median_had_another_name(tmp_path):
    (tmp_path / "quality.json").write_text(text(fragments={"usual": 1, "yellow": 2, "red": 3}))
    assert read_limits(tmp_path) == {"fragments": Limit(1.0, 2.0, 3.0)}


def text(**limits):
    return json.dumps({"format": "femur3d-quality-1", "limits": limits})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("[]", "no limits"),
        ('{"format": "femur3d-quality-2", "limits": {}}', "no limits"),
        ('{"format": "femur3d-quality-1"}', "no limits"),
        (text(beauty={"median": 0, "yellow": 1, "red": 2}), "unknown measure 'beauty'"),
        (text(fragments=[0, 1, 2]), "fragments is"),
        (text(fragments={"median": 0, "yellow": 1}), "fragments is"),
        (text(fragments={"median": 0, "yellow": 1, "red": "2"}), "fragments is"),
        (text(fragments={"median": 0, "yellow": 1, "red": True}), "fragments is"),
        (text(fragments={"median": 0, "yellow": 1, "red": float("nan")}), "fragments is"),
        (text(fragments={"median": 0, "yellow": 1, "red": 10**400}), "fragments is"),
        (text(fragments={"median": 0, "yellow": 2, "red": 1}), "rising order"),
        (text(fragments={"median": 1, "yellow": 1, "red": 1}), "rising order"),
        (text(side_ratio={"median": 0.5, "yellow": 0.6, "red": 0.7}), "falling order"),
        (" " * 200_000, "200,000 bytes"),
    ],
)
def test_a_damaged_file_is_two_lines(tmp_path, content, said):
    (tmp_path / "quality.json").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_limits(tmp_path)
    assert "quality.json" in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_a_file_that_is_no_text_is_two_lines(tmp_path):
    (tmp_path / "quality.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_limits(tmp_path)


def test_a_changed_number_is_told_and_a_file_of_an_earlier_version_is_read(tmp_path):
    write_limits(tmp_path, {"fragments": Limit(1.0, 2.0, 3.0)}, "nothing")
    path = tmp_path / "quality.json"
    path.write_text(path.read_text().replace("2.0", "2.5"))
    with pytest.raises(InputError, match="not the limits that were written"):
        read_limits(tmp_path)
    path.write_text(path.read_text().replace("limits_sha256", "note"))
    assert read_limits(tmp_path) == {"fragments": Limit(1.0, 2.5, 3.0)}


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "quality.json")
    with pytest.raises(InputError, match="a pipe or device"):
        read_limits(tmp_path)
