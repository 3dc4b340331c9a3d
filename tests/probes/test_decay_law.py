"""Laws of decay recovered from curves that follow them."""

import numpy as np
import pytest
import xarray as xr

from solomonic.probes import decay_law

LAG = np.array([1, 2, 3, 5, 8, 12, 20, 32, 48, 64, 96, 128])
CURVES = {
    "exponential": 0.5 * np.exp(-LAG / 9.0),
    "stretched": 2.0 * np.exp(-((LAG / 3.0) ** 0.5)),
    "power": 0.3 * LAG**-2.0,
    "exponential+floor": 0.5 * np.exp(-LAG / 4.0) + 1e-5,
    "power+floor": 0.3 * LAG**-3.0 + 1e-4,
    "exponential+cut": np.where(LAG <= 32, 0.5 * np.exp(-LAG / 9.0), 0.0),
    "power+cut": np.where(LAG <= 48, 0.3 * LAG**-2.0, 0.0),
}


def observed(curve: np.ndarray, *, prompts: int = 40, spread: float = 0.5, seed: int = 0) -> xr.Dataset:
    noise = np.exp(spread * np.random.default_rng(seed).standard_normal((prompts, LAG.size)))
    return xr.Dataset({"kl": (("prompt", "lag"), curve * noise)}, {"lag": LAG}, {"dtype": "float64"})


@pytest.fixture(scope="module")
def found():
    return {name: decay_law(observed(curve), rng=1) for name, curve in CURVES.items()}


@pytest.mark.parametrize("name", CURVES)
def test_the_law_that_made_the_curve_is_among_those_that_stay(found, name):
    result = found[name]
    close = [result.attrs["best"], *result.attrs["decided"].removeprefix("not from ").split(", ")]
    assert name in close
    wrong = {"exponential": "power", "power": "exponential", "stretched": "power"}.get(name, "exponential")
    assert wrong not in close
    assert float(result.behind.sel(law=result.attrs["best"])) == 0


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("exponential", "time", 9.0),
        ("stretched", "shape", 0.5),
        ("power", "power", 2.0),
        ("exponential+floor", "floor", 1e-5),
        ("power+floor", "power", 3.0),
        ("exponential+cut", "cut", 32),
        ("power+cut", "cut", 48),
    ],
)
def test_parameters_come_back(found, name, parameter, value):
    here = found[name].sel(law=name)
    assert float(here.value.sel(parameter=parameter)) == pytest.approx(value, rel=0.15)
    assert float(here.spread) == pytest.approx(0.5, rel=0.1)
    shown = CURVES[name] > 0
    np.testing.assert_allclose(np.log(here["median"].values[shown]), np.log(CURVES[name][shown]), atol=0.35)
    assert (here["median"].values[~shown] == 0).all()


def test_what_is_below_the_resolution_is_censored_and_not_fitted():
    curve = observed(CURVES["exponential"], spread=0.3)
    limit = float(CURVES["exponential"][8])
    rounded = curve.copy(deep=True)
    rounded["kl"] = curve.kl.where(curve.kl > limit, 0.0)
    result = decay_law(rounded, laws=["exponential", "power"], resolution=limit)
    assert float(result.value.sel(law="exponential", parameter="time")) == pytest.approx(9.0, rel=0.1)
    assert result.attrs["best"] == "exponential"


def test_laws_that_say_the_same_are_not_told_apart():
    lag = LAG[:5]
    noise = np.exp(np.random.default_rng(3).standard_normal((10, 5)))
    data = xr.Dataset({"kl": (("prompt", "lag"), 0.1 * np.exp(-lag / 50.0) * noise)}, {"lag": lag})
    assert decay_law(data, laws=["exponential", "power", "stretched"]).attrs["decided"] != "yes"


def test_what_it_refuses():
    data = observed(CURVES["power"])
    with pytest.raises(TypeError, match="result"):
        decay_law(3)
    with pytest.raises(ValueError, match="kl"):
        decay_law(xr.Dataset({"x": 1}))
    with pytest.raises(ValueError, match="laws"):
        decay_law(data, laws=["exponential", "linear"])
    with pytest.raises(ValueError, match="two to compare"):
        decay_law(data, laws=["power"])
    with pytest.raises(ValueError, match="folds"):
        decay_law(data, folds=41)
    with pytest.raises(ValueError, match="prompts"):
        decay_law(data.isel(prompt=[0]))
    with pytest.raises(ValueError, match="NaN"):
        decay_law(data.where(data.lag < 100))
    with pytest.raises(ValueError, match="nothing arrives"):
        decay_law(data * 0)
