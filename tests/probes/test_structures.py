"""All heads of a model in one call: the same as one by one, and certified."""

import numpy as np
import pytest
import torch

from solomonic.models import adapt
from solomonic.probes import load_dataset, save_dataset, structure, structures
from solomonic.realization import fitting, nilpotency

from ..models.adapters.small import small
from .small import small_model, tokens


def test_every_head_of_every_layer(tmp_path):
    model = small_model()  # BMF-M2-SWA-*, W = 6 and 5
    found = structures(model, window=2)
    np.testing.assert_array_equal(found.nilpotent_index, np.repeat([[3 + 4], [3], [2], [2]], 4, 1))
    np.testing.assert_array_equal(found.nilpotent_order, np.repeat([[3 + 6], [3], [2], [2]], 4, 1))
    np.testing.assert_array_equal(found.full_index, np.repeat([[15], [3], [5], [-1]], 4, 1))
    np.testing.assert_array_equal(found.full_order, np.repeat([[21], [3], [5], [-1]], 4, 1))
    assert (found.certified == 1).all()
    assert float(found.spectrum_error.max()) < 1e-10
    assert load_dataset(save_dataset(found, tmp_path / "s.nc")).identical(found)


def test_decays_are_those_of_structure():
    model, ids = small_model("BMF-M2"), tokens(2, 30)
    found = structures(model, ids=ids)
    for layer in (0, 1):
        np.testing.assert_allclose(
            found.decay.sel(layer=layer), structure(model, layer, ids=ids, quantiles=[0.5]).decay[0]
        )


def test_the_matrix_of_a_head_is_nilpotent_beside_its_decay():
    model = small_model("BMF", dtype=torch.float64)
    found = structures(model, window=3)
    A = found.transition.sel(layer=0, head=2).to_numpy()
    split = fitting(A)
    assert split.core.shape == (1, 1)
    assert float(split.core[0, 0]) == pytest.approx(float(found.decay.sel(layer=0, head=2)))
    certificate = nilpotency(split.nilpotent)
    assert certificate.index == int(found.nilpotent_index.sel(layer=0, head=2))
    # A head's taps are those of its own first channel.
    weight = model.model.layers[0].mixer.mamba.conv1d.weight[:, 0]  # type: ignore[union-attr,index]
    channel = 2 // 2 * 8
    np.testing.assert_allclose(A[3, :3], weight[channel].flip(0)[1:].numpy())


def test_full_size_is_what_the_small_matrix_has_at_that_window():
    for window in (3, 5):
        found = structures(small_model("BMF-SWA", bmojo_window=window, swa_window=window), window=window)
        np.testing.assert_array_equal(found.full_index, found.nilpotent_index)
        np.testing.assert_array_equal(found.full_order, found.nilpotent_order)


def test_what_it_refuses():
    with pytest.raises(TypeError, match="HybridLM"):
        structures(adapt(small("mamba2")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers"):
        structures(small_model(), layers=9)
    with pytest.raises(ValueError, match="window"):
        structures(small_model(), window=0)
