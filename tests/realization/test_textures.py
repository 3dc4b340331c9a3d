"""Dynamic textures: stability, the direction of time, speed; stacks of residuals and the detector at their end."""

import numpy as np
import pytest

from solomonic.realization import (
    FILMS,
    DynamicTexture,
    LinearLayer,
    RepairWarning,
    ResidualStack,
    SeasonalLayer,
    TrendLayer,
    film,
    find_changes,
    save_animation,
)


@pytest.fixture(scope="module")
def textures():
    return {kind: DynamicTexture.fit(film(kind, frames=200, size=24, rng=1), order=20 if kind != "waves" else 6)
            for kind in FILMS}  # fmt: skip


def motion(frames):
    """How far a frame moves to the next, by the shift of the cross-correlation: (rows up, columns to the right)."""
    f = np.fft.fft2(frames - frames.mean(0))
    cross = np.real(np.fft.ifft2(np.mean(np.conj(f[:-1]) * f[1:], 0)))
    rows, columns = cross.shape
    r, c = np.unravel_index(cross.argmax(), cross.shape)
    return -((r + rows // 2) % rows - rows // 2), (c + columns // 2) % columns - columns // 2


@pytest.mark.parametrize("kind", FILMS)
def test_a_texture_is_stable_and_keeps_the_statistics_of_its_film(textures, kind):
    texture = textures[kind]
    assert texture.radius < 1
    assert 0.5 < texture.explained <= 1
    made = texture.synthesize(4000, rng=0)
    seen = texture.render(texture.states)
    assert made.shape == (4000, 24, 24)
    assert np.allclose(made.mean(0), seen.mean(0), atol=4 * seen.std() / np.sqrt(100))
    assert made.var(0).sum() == pytest.approx(seen.var(0).sum(), rel=0.6)  # 200 frames know their variance no better


def test_the_state_covariance_solves_its_equation(textures):
    texture = textures["smoke"]
    p = texture.state_covariance()
    assert np.allclose(p, texture.A @ p @ texture.A.T + texture.Q, atol=1e-8 * np.abs(p).max())


def test_time_runs_backwards(textures):
    """Smoke rises one row a frame; backwards it falls, by new noise, with the same variance."""
    texture = textures["smoke"]
    forward, backward = texture.synthesize(600, rng=0), texture.synthesize(600, backwards=True, rng=1)
    assert motion(film("smoke", frames=200, size=24, rng=1))[0] == 1
    assert motion(forward)[0] == 1
    assert motion(backward)[0] == -1
    a, q = texture.step()
    back, back_noise = texture.step(backwards=True)
    p = texture.state_covariance()
    assert np.allclose(back @ p @ back.T + back_noise, p, atol=1e-7 * np.abs(p).max())
    assert np.allclose(back @ p, (a @ p).T, atol=1e-7 * np.abs(p).max())  # E x_t x_{t+1}^T, transposed
    assert np.linalg.eigvalsh(back_noise)[0] > -1e-9 * np.linalg.norm(q)


def test_speed(textures):
    texture = textures["waves"]
    p = texture.state_covariance()
    twice, noise = texture.step(2)
    assert np.allclose(twice, texture.A @ texture.A)
    assert np.allclose(noise, texture.A @ texture.Q @ texture.A.T + texture.Q, atol=1e-8 * np.abs(p).max())
    slow, _ = texture.step(0.5)
    assert np.allclose(slow @ slow, texture.A, atol=1e-6)
    shown = [motion(textures["smoke"].synthesize(600, speed=s, rng=2))[0] for s in (1, 3)]
    assert shown == [1, 3]


def test_a_speed_that_no_process_has_is_mended_aloud():
    texture = DynamicTexture.fit(film("smoke", frames=60, size=12), order=3)
    rough = DynamicTexture(
        np.diag([-0.9, 0.5, 0.2]), texture.C, np.eye(3), texture.mean, texture.shape, texture.states, 1.0, 0.0
    )
    mixed = DynamicTexture(
        np.array([[0.9, 5.0, 0], [0, 0.1, 0], [0, 0, 0.5]]), texture.C, np.diag([1e-6, 1.0, 1.0]), texture.mean,
        texture.shape, texture.states, 1.0, 0.0,
    )  # fmt: skip
    assert np.isfinite(rough.synthesize(20, speed=0.5, rng=0)).all()
    with pytest.warns(RepairWarning, match="positive semidefinite"):
        mixed.step(0.2)


def test_a_growing_film_gives_a_stable_texture():
    frames = 1.05 ** np.arange(60)[:, None, None] * film("waves", frames=60, size=12)
    texture = DynamicTexture.fit(frames, order=6)
    assert texture.radius < 1
    assert texture.stability_price > 0
    assert np.abs(texture.synthesize(2000, rng=0)).max() < 1e3 * np.abs(frames).max()


def test_textures_are_saved_and_shown(textures, tmp_path):
    texture = textures["waves"]
    again = DynamicTexture.load(texture.save(tmp_path / "waves"))
    assert np.array_equal(again.synthesize(5, rng=0), texture.synthesize(5, rng=0))
    path = save_animation(texture.synthesize(4, rng=0), tmp_path / "waves.gif")
    assert path.read_bytes()[:3] == b"GIF"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_colour_films():
    colours = np.stack([film("flame", frames=40, size=12, rng=k) for k in range(3)], -1)
    assert DynamicTexture.fit(colours, order=5).synthesize(3, rng=0).shape == (3, 12, 12, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DynamicTexture.fit(np.zeros((30, 4, 4)), order=2), "motion in at least 2"),
        (lambda: DynamicTexture.fit(film("smoke", frames=10, size=8), order=20), "at least 22 frames"),
        (lambda: DynamicTexture.fit(np.zeros((30, 4)), order=2), "dimensions"),
        (lambda: DynamicTexture.fit(film("smoke", frames=10, size=8), order=2).synthesize(3, speed=0), "positive"),
        (lambda: film("fog"), "smoke, waves, flame"),
        (lambda: save_animation(np.zeros((3, 4, 4)), "film.mp4"), ".gif"),
    ],
)
def test_bad_films(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------- stacks
def seasonal_series(seed=0, steps=480):
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    noise = np.zeros(steps)
    for k in range(1, steps):
        noise[k] = 0.6 * noise[k - 1] + 0.3 * rng.standard_normal()
    return 0.02 * t + 2 * np.sin(2 * np.pi * t / 12) + noise


def test_each_layer_leaves_less():
    y = seasonal_series()
    stack = ResidualStack.fit(y, period=12)
    rows = stack.residuals(y)[:, 100:]
    spread = rows.std(1)
    assert spread[0] > spread[1] > spread[3]
    assert spread[2] > spread[3]
    assert spread[3] == pytest.approx(0.3, rel=0.35)
    assert np.allclose(stack.predict(y) + stack.residuals(y)[-1], y)


def test_predictions_do_not_look_ahead():
    y = seasonal_series()
    stack = ResidualStack.fit(y, period=12)
    changed = y.copy()
    changed[300:] += 100.0
    assert np.array_equal(stack.predict(y)[:300], stack.predict(changed)[:300])


def test_a_change_is_found_where_it_is_and_nowhere_else():
    y = seasonal_series(1)
    stack = ResidualStack.fit(y[:300], period=12)
    assert stack.changes(y).places == ()
    for length in (20, 80):
        burst = y.copy()
        burst[400 : 400 + length] += np.random.default_rng(0).standard_normal(length) * 2
        places = stack.changes(burst, window=20).places
        assert len(places) >= 1
        assert all(min(abs(p - 400), abs(p - 400 - length)) <= 10 for p in places)  # its start, its end, nothing else


def test_false_alarms_come_at_their_rate():
    rng = np.random.default_rng(0)
    series = [rng.standard_normal(200) for _ in range(200)]
    alarms = sum(bool(find_changes(e, window=15, simulations=99, rng=k).places) for k, e in enumerate(series))
    assert 2 <= alarms <= 20  # 10 of 200, within three standard errors


def test_co2_and_the_nile():
    """statsmodels' shipped series: the last innovations of the CO2 record are small; the Nile changes in 1898."""
    datasets = pytest.importorskip("statsmodels.datasets")
    co2 = datasets.co2.load_pandas().data["co2"].resample("MS").mean().interpolate().to_numpy()
    stack = ResidualStack.fit(co2, period=12)
    rows = stack.residuals(co2)[:, 60:]
    assert rows[-1].std() < 0.4  # parts per million; the seasons alone are 2
    assert rows[-1].std() < 0.5 * rows[1].std()
    nile = datasets.nile.load_pandas().data["volume"].to_numpy()
    found = find_changes(nile, window=15)
    assert len(found.places) >= 1
    assert abs(1871 + found.places[0] - 1898) <= 3


def test_bad_stacks():
    with pytest.raises(ValueError, match="at least 40"):
        ResidualStack.fit(np.zeros(10))
    with pytest.raises(ValueError, match="period"):
        SeasonalLayer(2).fit(np.arange(100.0))
    with pytest.raises(ValueError, match="two windows"):
        find_changes(np.arange(20.0))
    with pytest.raises(ValueError, match="constant"):
        find_changes(np.ones(100))
    layers = [TrendLayer(ratio=0.1), LinearLayer(order=1)]
    assert ResidualStack.fit(seasonal_series(), layers=layers).names == ("trend", "linear")
