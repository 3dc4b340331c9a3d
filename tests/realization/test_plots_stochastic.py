"""Plots of identification and stochastic realization: what they draw."""

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import pytest
from matplotlib.figure import Figure

from solomonic.realization import backward_model, faurre, forward_model, identify, plots


def test_plots_draw_on_the_axes_given():
    y = np.convolve(np.random.default_rng(0).standard_normal(500), 0.8 ** np.arange(20))[:500]
    model = identify(y, order=1, past=6)
    axes = Figure().subplots(1, 3)
    assert plots.plot_order(model, ax=axes[0]) is axes[0]
    test = model.whiteness(permutations=9)
    assert "permutation" in plots.plot_whiteness(test, ax=axes[1]).get_title()
    interval = faurre(np.diag([0.8, 0.3]), [[1.0, 1.0]], [[0.6, 0.3]], [[2.0]])
    ellipses = plots.plot_faurre(interval, ax=axes[2]).lines
    areas = [np.ptp(line.get_xdata()) for line in ellipses]
    assert areas == sorted(areas)  # P- inside the members inside P+
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    with pytest.raises(ValueError, match="two states"):
        plots.plot_faurre(faurre([[0.5]], [[1.0]], [[1.0]], [[3.0]]))


def test_simulations_and_innovations():
    cov = faurre(np.diag([0.8, 0.3]), [[1.0, 1.0]], [[0.6, 0.3]], [[2.0]]).covariances
    axes = Figure().subplots(1, 3)
    for model, ax, start in ((forward_model(*cov), axes[0], 0), (backward_model(*cov), axes[1], 49)):
        assert plots.plot_simulation(model, 50, rng=1, ax=ax) is ax
        path, dot = ax.lines
        assert np.array_equal(path.get_ydata(), model.simulate(50, rng=1).y[:, 0])
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (start, path.get_ydata()[start])
        assert model.direction in ax.get_legend().get_texts()[0].get_text()
    found = identify(forward_model(*cov).simulate(300, rng=0).y, order=1)
    assert plots.plot_innovations(found, ax=axes[2]) is axes[2]
    assert np.array_equal(axes[2].lines[0].get_ydata(), found.innovations[0][:, 0])
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    with pytest.raises(ValueError, match="holds innovations"):
        plots.plot_innovations(type(found)(found.A, found.B, found.C, found.D, found.K, found.innovation_covariance))
