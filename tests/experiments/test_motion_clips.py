"""The surrogate's clips: what each kind of motion does, as numbers and in rendered pictures."""

import functools

import numpy as np
import pytest

from experiments.surrogate import motion_clips

KINDS, make_clip, distance = motion_clips.KINDS, motion_clips.make_clip, motion_clips.distance

T = np.array([-1, -0.75, -0.25, 0, 0.5, 1])


class Fixed:
    """A generator whose every number lies at the same share of its range."""

    def __init__(self, share):
        self.share = share

    def uniform(self, low, high, size=None):
        value = low + self.share * (high - low)
        return value if size is None else np.full(size, value)


@functools.cache
def kinds_of_seed_0():
    return [KINDS[make_clip(0, n, 1, 4)[1]] for n in range(300)]


def number_of(kind, skip):
    """The number of a clip of seed 0 that moves like this; `skip` passes over the first ones."""
    return [n for n, found in enumerate(kinds_of_seed_0()) if found == kind][skip]


def test_clip_is_a_pure_function_of_seed_and_number():
    np.random.seed(1)  # noqa: NPY002  the state that a careless generator would use
    clips = {(seed, number): make_clip(seed, number, 3, 12) for seed in (0, 1) for number in (0, 1, 10)}
    np.random.seed(2)  # noqa: NPY002
    for (seed, number), (clip, kind) in reversed(clips.items()):
        again, kind_again = make_clip(seed, number, 3, 12)
        np.testing.assert_array_equal(again, clip, strict=True)
        assert kind_again == kind
    assert len({clip.tobytes() for clip, _ in clips.values()}) == 6  # (0, 1) and (1, 0) differ too


@pytest.mark.parametrize("number", range(6))
def test_clip_is_normalised(number):
    clip, kind = make_clip(5, number, 4, 20)
    assert clip.shape == (4, 20, 20, 3)
    assert clip.dtype == np.float32
    assert clip.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert clip.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert isinstance(kind, int)
    assert np.ptp(clip.mean((0, 1, 2))) > 0  # in colour


def test_every_kind_occurs_about_equally_often():
    counts = [kinds_of_seed_0().count(kind) for kind in KINDS]
    assert len(KINDS) == len(set(KINDS)) == 10
    assert min(counts) > 15
    assert max(counts) < 50


# The middle of every range: centre 0, radius 0.475, speed 0.45, angle and directions 0.
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("still", (0, 0, 0, 0.475)),
        ("left", (-0.45 * T, 0, 0, 0.475)),
        ("right", (0.45 * T, 0, 0, 0.475)),
        ("up", (0, -0.45 * T, 0, 0.475)),
        ("down", (0, 0.45 * T, 0, 0.475)),
        ("clockwise", (0, 0, 0.9 * T, 0.475)),
        ("counterclockwise", (0, 0, -0.9 * T, 0.475)),
        ("growing", (0, 0, 0, 0.475 * np.exp(0.45 * T))),
        ("shrinking", (0, 0, 0, 0.475 * np.exp(-0.45 * T))),
        ("swinging", ([0, 0.4, -0.4, 0, 0, 0], 0, 0, 0.475)),
    ],
)
def test_motion_by_hand(kind, expected):
    found = motion_clips.motion(kind, T, Fixed(0.5))
    assert [f.shape for f in found] == [(6,)] * 4
    for name, f, e in zip(("x", "y", "angle", "scale"), found, expected, strict=True):
        np.testing.assert_allclose(f, np.broadcast_to(e, 6), atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_motion_changes_one_thing_only(kind):
    t, moving = np.linspace(-1, 1, 9), {"left": 0, "right": 0, "up": 1, "down": 1, "growing": 3, "shrinking": 3}
    moving |= {"clockwise": 2, "counterclockwise": 2}
    falls = kind in ("left", "up", "counterclockwise", "shrinking")
    places = set()
    for seed in range(20):
        found = motion_clips.motion(kind, t, np.random.default_rng(seed))
        assert found[3].min() > 0.35 * np.exp(-0.6) - 1e-9
        assert found[3].max() < 0.6 * np.exp(0.6) + 1e-9
        assert max(np.abs(found[0]).max(), np.abs(found[1]).max()) <= 0.85  # the centre stays in the picture
        places.add((found[0][4], found[1][4]))
        for i, values in enumerate(found):
            if kind == "swinging" and i < 2:
                np.testing.assert_allclose(values[:5], values[4:], atol=1e-9)  # to and fro, twice
            elif moving.get(kind) == i:
                assert (np.diff(values) < 0).all() if falls else (np.diff(values) > 0).all()
            else:
                assert np.ptp(values) == 0
        if kind == "swinging":
            assert np.hypot(np.ptp(found[0]), np.ptp(found[1])) > 0.5
    assert len(places) == 20


S3 = np.sqrt(3)


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ("disc", [(0.6, 0.8), (-1, 0), (0, 1)]),
        ("square", [(0.85, 0.3), (-0.2, -0.85), (-0.85, 0.85)]),
        # A point up (y is down) and two corners below; then the middles of two sides.
        ("triangle", [(0, -1), (S3 / 2, 0.5), (-S3 / 2, 0.5), (0, 0.5), (S3 / 4, -0.25)]),
    ],
)
def test_distance_is_one_on_the_boundary(shape, points):
    u, v = np.transpose(points)
    np.testing.assert_allclose(distance(shape, u, v), 1, atol=1e-12)
    np.testing.assert_allclose(distance(shape, 0.5 * u, 0.5 * v), 0.5, atol=1e-12)
    np.testing.assert_allclose(distance(shape, 3 * u, 3 * v), 3, atol=1e-12)


def test_distance_of_the_ring():
    """Its line has radius 0.75 and runs 0.225 to either side; in the middle there is a hole."""
    u, v = np.array([0.525, 0.975, 0, -0.42, -0.78]), np.array([0, 0, -0.525, 0.315, -0.585])
    np.testing.assert_allclose(distance("ring", u, v), 1, atol=1e-12)
    np.testing.assert_allclose(distance("ring", np.array([0.75, 0.45]), np.array([0, 0.6])), 0.25, atol=1e-12)
    np.testing.assert_allclose(distance("ring", np.array([0, 1.05]), np.array([0, 0])), [2.75, 1.25], atol=1e-12)


def test_texture_by_hand():
    """All draws at their upper ends: colour 1 and four equal waves along u, 1.5 long and 0.5 high."""
    u, v = np.array([[0, 0.375, -0.375], [0.75, 0.125, 1.5]]), np.array([[0, 3, -7], [1, 2, 4]])
    found = motion_clips.texture(u, v, Fixed(1))
    assert found.shape == (2, 3, 3)
    np.testing.assert_allclose(found, np.array([[1, 3, -1], [1, 2, 1]])[..., None].repeat(3, 2), atol=1e-9)


def test_only_still_clips_stand_still(monkeypatch):
    monkeypatch.setattr(motion_clips, "NOISE", 0)
    seen = set()
    for number in range(60):
        clip, kind = make_clip(0, number, 5, 24)
        seen.add(KINDS[kind])
        steps = np.abs(np.diff(clip, axis=0)).mean((1, 2, 3))
        assert (steps == 0).all() if KINDS[kind] == "still" else (steps > 0.01).all()
    assert seen == set(KINDS)


@pytest.mark.parametrize("skip", range(4))
def test_frames_of_a_still_clip_differ_by_noise_only(monkeypatch, skip):
    number = number_of("still", skip)
    clip = make_clip(0, number, 4, 40)[0].astype(np.float64)
    monkeypatch.setattr(motion_clips, "NOISE", 0)
    clean = make_clip(0, number, 4, 40)[0][0].astype(np.float64)
    noise = np.diff(clip, axis=0)
    assert abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03  # white over rows
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03  # and over colours
    assert abs(np.corrcoef(noise[0].ravel(), clean.ravel())[0, 1]) < 0.06
    # With s the deviation of the textures: var(clip) = 1 = (s² + 0.1²) / scale², so that clip ≈ clean · s / scale.
    share = 1 - (clip.mean(0) * clean).mean() ** 2  # = 0.1² / scale²
    assert noise.std() == pytest.approx(np.sqrt(2 * share), rel=0.1)
    scale = 0.1 / (noise.std() / np.sqrt(2))
    assert 0.3 < scale < 2


@pytest.fixture
def shape_in_pictures(monkeypatch):
    """Renders a kind of motion with 1 inside the shape and 0 outside it; returns (frames, y, x)."""

    def render(kind, shape, skip, half=False):
        def paint(u, v, rng):
            inside = u.ndim == 3 and (u > 0 if half else np.ones_like(u))  # else the background
            return np.broadcast_to(np.multiply(inside, 1.0), u.shape)[..., None].repeat(3, -1)

        number = number_of(kind, skip)
        monkeypatch.setattr(motion_clips, "NOISE", 0)
        monkeypatch.setattr(motion_clips, "SHAPES", (shape,))
        monkeypatch.setattr(motion_clips, "texture", paint)
        clip, found = make_clip(0, number, 5, 48)
        assert KINDS[found] == kind
        picture = clip[..., 0].astype(np.float64)
        return (picture - picture.min()) / np.ptp(picture)

    return render


def centres(pictures):
    """x and y of each picture's centre of gravity, in pixels, rightwards and downwards."""
    y, x = np.mgrid[: pictures.shape[1], : pictures.shape[2]]
    return [(pictures * axis).sum((1, 2)) / pictures.sum((1, 2)) for axis in (x, y)]


@pytest.mark.parametrize("skip", range(3))
@pytest.mark.parametrize(("kind", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_moving_in_the_picture(shape_in_pictures, kind, axis, sign, skip):
    pictures = shape_in_pictures(kind, "disc", skip)
    centre = centres(pictures)
    assert (np.diff(centre[axis]) * sign > 1).all()
    assert np.ptp(centre[1 - axis]) < 0.2


@pytest.mark.parametrize("skip", range(3))
@pytest.mark.parametrize(("kind", "sign"), [("clockwise", 1), ("counterclockwise", -1)])
def test_turning_in_the_picture(shape_in_pictures, kind, sign, skip):
    """Half a disc turns about the disc's middle; from the top over the right to the bottom is clockwise.

    Worked example, y downwards: (0, -1) → (1, 0) → (0, 1) has steps (1, 1) and (-1, 1), cross product 1·1 - 1·(-1) = 2.
    """
    x, y = (np.diff(c) for c in centres(shape_in_pictures(kind, "disc", skip, half=True)))
    assert (np.hypot(x, y) > 0.5).all()
    assert ((x[:-1] * y[1:] - y[:-1] * x[1:]) * sign > 0).all()


@pytest.mark.parametrize("skip", range(3))
@pytest.mark.parametrize(("kind", "sign"), [("growing", 1), ("shrinking", -1)])
def test_growing_in_the_picture(shape_in_pictures, kind, sign, skip):
    area = shape_in_pictures(kind, "square", skip).sum((1, 2))
    assert (np.diff(np.log(area)) * sign > 0.1).all()


def test_triangle_points_up_and_ring_has_a_hole(shape_in_pictures, monkeypatch):
    upright = (np.zeros(5), np.zeros(5), np.zeros(5), np.full(5, 0.8))  # x, y, angle, radius
    monkeypatch.setattr(motion_clips, "motion", lambda kind, t, rng: upright)
    width = (shape_in_pictures("still", "triangle", 0)[0] > 0.5).sum(1)
    assert width[3] == width[34] == 0  # a point at y = -0.8, a side at y = 0.4
    assert width[6] < width[12] < width[18] < width[25] < width[31]
    assert width[25] == 24  # y = 0.064: half the width is 0.8 · (1 + 0.064/0.8) / √3 = 0.499, which is 11.7 pixels
    row = shape_in_pictures("still", "ring", 0)[0, 24]
    assert row[23] == row[0] == 0
    assert row[24 - 14] == row[24 + 14] == 1  # 0.75 · 0.8 of half a picture
