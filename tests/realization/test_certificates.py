"""Certificates against structures known by construction; test_trials.py runs the thousand random ones."""

import numpy as np
import pytest
import scipy.linalg

from solomonic.realization import (
    departure_from_normality,
    diagonalizability,
    fitting,
    jordan_structure,
    kreiss_constant,
    nilpotency,
    numerical_radius,
    pseudospectrum,
    rounding_uncertainty,
    weyr_characteristic,
)
from solomonic.realization._normal_modes import split_normal_modes
from solomonic.realization.gallery import jordan_matrix, known_structure, random_orthogonal

EPS = np.finfo(float).eps


def rotated(matrix, rng):
    q = random_orthogonal(len(matrix), rng)
    return q @ matrix @ q.T


def skewed(truth, rng, worst=3.0):
    """A change of basis of condition up to 10^worst, and the bound of the rounding it causes."""
    n = len(truth.matrix)
    scale = np.logspace(0, -rng.uniform(0, worst), n) if n > 1 else np.ones(1)
    t = random_orthogonal(n, rng) @ np.diag(scale) @ random_orthogonal(n, rng)
    back = np.linalg.inv(t)
    norms = [np.linalg.norm(x, 2) for x in (t, truth.matrix, back)]
    return t @ truth.matrix @ back, n * EPS * float(np.prod(norms))


@pytest.mark.parametrize("core", ["few", "outside", "any", "none"])
def test_index_and_weyr_of_rotated_structures(core):
    rng = np.random.default_rng(10)
    for _ in range(12):
        truth = known_structure(rng, core=core)
        found = nilpotency(rotated(truth.matrix, rng))
        assert found.weyr == truth.weyr
        assert found.index == len(truth.weyr)
        assert found.jordan == truth.jordan
        assert found.core_order == truth.core_order
        assert found.verdict is (truth.core_order == 0)


@pytest.mark.parametrize("core", ["few", "outside"])
def test_skewed_structures_never_get_a_wrong_verdict(core):
    rng = np.random.default_rng(11)
    for _ in range(40):
        truth = known_structure(rng, largest=32, core=core)
        a, uncertainty = skewed(truth, rng)
        found = nilpotency(a, uncertainty=uncertainty)
        assert found.verdict in (None, truth.core_order == 0)
        if found.verdict is not None:
            assert found.weyr == truth.weyr
        else:
            assert "Undecidable" in found.reason


def test_structured_changes_never_leave_the_bracket():
    """Rank one, one corner, the diagonal, complex noise; blocks of any scale, n = 1 included."""
    rng = np.random.default_rng(20)
    for k in range(80):
        n = int(rng.integers(1, 40))
        nil = jordan_matrix([n - n // 3, n // 3] if n > 2 else [1] * n) * 10 ** rng.uniform(-4, 4)
        corner = np.zeros((n, n))
        corner[-1, 0] = 1
        change = (
            np.outer(rng.standard_normal(n), rng.standard_normal(n)),
            corner,
            np.diag(rng.standard_normal(n)),
            rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)),
        )[k % 4]
        size = 10 ** rng.uniform(-12, -2)
        a = rotated(nil + size * change / np.linalg.norm(change, 2), rng)
        lower, upper = nilpotency(a).distance
        assert lower <= upper
        assert lower <= size * (1 + 1e-9) + 20 * n * EPS * np.linalg.norm(a, 2)


def test_graded_nilpotent_matrices_are_never_denied():
    rng = np.random.default_rng(21)
    for k in range(60):
        n = int(rng.integers(2, 50))
        if k % 2:
            nil = np.triu(rng.standard_normal((n, n)), 1)
        else:
            nil = np.diag(10.0 ** rng.uniform(-10, 0, n - 1), 1)
        found = nilpotency(rotated(nil, rng))
        assert found.verdict is not False
        assert found.distance[0] <= 20 * n * EPS * np.linalg.norm(nil, 2)


def test_small_modes_beside_a_long_chain_are_not_taken_for_links():
    """Twelve modes of 1e-3: their 12th power drowns in the rounding after 4 steps of a chain, but they are normal."""
    rng = np.random.default_rng(30)
    angle = np.exp(1j * np.arange(1, 6))
    turning = [1e-3 * np.array([[z.real, -z.imag], [z.imag, z.real]]) for z in angle]
    parts = [jordan_matrix([20, 3, 1]), *turning, 1e-3 * np.eye(1), np.diag([-1e-3, 900.0, 1.0])]
    a = rotated(scipy.linalg.block_diag(*parts), rng)
    for matrix in (a, np.exp(0.7j) * a):
        found = nilpotency(matrix)
        assert found.jordan == (20, 3, 1)
        assert found.verdict is False
        split = fitting(matrix)
        assert split.nil_order == 24
        assert np.isrealobj(split.transform) == np.isrealobj(matrix)
        assert split.residual < 1e-13
        assert weyr_characteristic(matrix).jordan == (20, 3, 1)


@pytest.mark.parametrize("seed", range(4))
def test_normal_modes_are_split_off_by_modulus(seed):
    """Also where all of the matrix is normal, where moduli are equal and where it is complex."""
    rng = np.random.default_rng(seed)
    pairs = [r * np.array([[np.cos(w), -np.sin(w)], [np.sin(w), np.cos(w)]]) for r, w in ((0.5, 1), (0.5, 2), (2, 1))]
    core = scipy.linalg.block_diag(np.diag([0.5, -0.5, 0.5, 3.0]), *pairs)
    nil = [jordan_matrix([4, 2])] if seed % 2 else []
    a = rotated(scipy.linalg.block_diag(*nil, core), rng) * (1 if seed < 2 else np.exp(1j))
    found = split_normal_modes(a, 3.0, 1e-13)
    assert found is not None
    assert np.allclose(found.moduli, [0.5] * 7 + [2.0] * 2 + [3.0])
    v, k = found.basis, len(found.moduli)
    assert np.isrealobj(v) == np.isrealobj(a)
    assert np.allclose(v.conj().T @ v, np.eye(len(a)), atol=1e-13)
    form = v.conj().T @ a @ v
    assert np.abs(form[:-k, -k:]).max(initial=0) < 1e-12
    assert np.abs(form[-k:, :-k]).max(initial=0) < 1e-12
    for cut in (7, 9):  # blocks of one modulus each: a tolerance cuts between them
        assert np.abs(form[-k:, -k:][:cut, cut:]).max() < 1e-12
        assert np.abs(form[-k:, -k:][cut:, :cut]).max() < 1e-12


def test_modes_that_are_not_normal_stay_with_the_staircase():
    rng = np.random.default_rng(31)
    core = np.diag([0.7, -0.8, 0.9]) + np.triu(rng.standard_normal((3, 3)), 1)
    a = rotated(scipy.linalg.block_diag(jordan_matrix([8, 2]), core), rng)
    assert split_normal_modes(a, np.linalg.norm(a, 2), 1e-13) is None
    assert nilpotency(a).jordan == (8, 2)


def test_without_a_clear_gap_no_more_than_the_rounding_is_discarded():
    """Where modes are not normal, other structures lie near: one beyond the rounding needs a gap of 1e6."""
    rng = np.random.default_rng(32)
    for _ in range(40):
        truth = known_structure(rng, core="any", largest=60)
        d = sum(truth.weyr)
        matrix = truth.matrix.copy()
        core = matrix[d:, d:]
        core += np.triu(rng.standard_normal(core.shape), 2) * np.abs(core).max(initial=0)
        a = rotated(matrix, rng)
        found = nilpotency(a)
        chosen = [row for row in found.table if row.weyr == found.weyr]
        small = [row for row in found.table if row.discarded <= found.uncertainty < row.kept]
        assert any(row.discarded <= found.uncertainty or row.kept > 1e6 * row.discarded for row in chosen) or not small


@pytest.mark.parametrize("field", ["real", "complex"])
def test_nilpotent_matrices_without_gaps(field):
    """Random strictly triangular matrices, rotated: one chain each, which a flag finds where no gap shows it."""
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n = 10 + seed
        nil, q = np.triu(rng.standard_normal((n, n)), 1), random_orthogonal(n, rng)
        if field == "complex":
            q = np.linalg.qr(rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)))[0]
        found.append(nilpotency(q @ nil @ q.conj().T))
        assert found[-1].verdict is not False
        if found[-1].verdict:
            assert found[-1].index == n
            assert found[-1].core_order == 0
    assert sum(each.verdict is True for each in found) >= 5


def test_a_stated_uncertainty_bounds_what_the_index_may_take_for_zero():
    a = rotated(np.diag([1.0, 0.5, 3e-9, 1e-13]), np.random.default_rng(22))
    assert nilpotency(a, uncertainty=1e-12).weyr == (1,)
    assert nilpotency(a, uncertainty=1e-8).weyr == (2,)
    assert fitting(a, uncertainty=1e-12).nil_order == 1
    assert nilpotency(np.diag([1.0, 0.5, 1.5e-12]), uncertainty=1e-12).weyr == ()
    assert weyr_characteristic(a, uncertainty=1e-8).weyr == (2,)


@pytest.mark.parametrize("order", [1, 4])
def test_zero_and_numbers(order):
    zero = np.zeros((order, order))
    assert nilpotency(zero).verdict is True
    assert nilpotency(zero).index == 1
    assert fitting(zero).nil_order == order
    found = diagonalizability(zero)
    assert found.verdict is True
    assert found.distance == ((np.inf, np.inf) if order == 1 else (0.0, 0.0))
    assert jordan_structure(zero).weyr == ((order,),)
    assert nilpotency([[2.0]]).distance == pytest.approx((2, 2))
    assert kreiss_constant(zero).upper == 1
    assert numerical_radius(zero).upper == 0
    assert pseudospectrum(zero).radius(0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("size", [1e-200, 1e160])
@pytest.mark.parametrize("function", [nilpotency, diagonalizability, kreiss_constant, pseudospectrum, numerical_radius])
def test_sizes_whose_squares_overflow_are_named(function, size):
    with pytest.raises(ValueError, match="A: expected a largest entry between 1e-140 and 1e140"):
        function(np.full((2, 2), size))


def test_eigenvalues_lie_and_the_certificate_does_not():
    a = rotated(np.eye(64, k=1), np.random.default_rng(0))
    assert np.abs(np.linalg.eigvals(a)).max() > 0.5
    found = nilpotency(a)
    assert found.verdict is True
    assert found.jordan == (64,)
    assert found.distance[1] < 1e-12


def test_small_powers_are_no_proof_of_nilpotency():
    a = 0.1 * np.eye(16)
    assert np.linalg.norm(np.linalg.matrix_power(a, 16)) < 1e-15
    assert nilpotency(a).verdict is False
    assert nilpotency(a).distance == pytest.approx((0.1, 0.1))


def test_a_matrix_without_cycles_is_nilpotent_exactly():
    rng = np.random.default_rng(3)
    order = rng.permutation(30)
    a = np.triu(rng.standard_normal((30, 30)), 1)[np.ix_(order, order)]  # pyright: ignore
    found = nilpotency(a, uncertainty=0)
    assert found.verdict is True
    assert found.distance == (0.0, 0.0)


def test_weights_of_bfloat16_are_nilpotent_within_their_own_rounding():
    torch = pytest.importorskip("torch")
    a = torch.tensor(rotated(jordan_matrix([12, 4]), np.random.default_rng(1))).to(torch.bfloat16).requires_grad_()
    assert nilpotency(a).verdict is False
    found = nilpotency(a, uncertainty=rounding_uncertainty(a, torch.bfloat16))
    assert found.verdict is not False
    assert found.distance[0] <= rounding_uncertainty(a, torch.bfloat16)


def test_a_bracket_that_straddles_the_uncertainty_is_undecided():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((16, 16))
    a = rotated(jordan_matrix([16]), rng) + 1e-6 * noise / np.linalg.norm(noise, 2)
    lower, upper = nilpotency(a).distance
    found = nilpotency(a, uncertainty=1.1 * lower)
    assert found.verdict is None
    assert "Undecidable" in found.reason
    assert nilpotency(a, uncertainty=1.01 * upper).verdict is True
    assert nilpotency(a, uncertainty=0.5 * lower).verdict is False


def test_fitting_splits_memory_into_finite_and_fading():
    rng = np.random.default_rng(0)
    core = np.diag([0.3, 0.5, -0.7, 0.9, 2.0]) + np.triu(rng.standard_normal((5, 5)), 1)
    t = rng.standard_normal((9, 9))
    a = t @ scipy.linalg.block_diag(np.eye(4, k=1), core) @ np.linalg.inv(t)  # pyright: ignore
    split = fitting(a, uncertainty=1e-12)
    assert split.verdict is True
    assert (split.index, split.nil_order) == (4, 4)
    assert not np.any(np.linalg.matrix_power(split.nilpotent, 4))
    assert split.residual < 1e-12
    gap = np.kron(split.nilpotent, np.eye(5)) - np.kron(np.eye(4), split.core.T)
    assert split.sep == pytest.approx(np.linalg.svd(gap, compute_uv=False)[-1], rel=0.05)
    projector = split.transform[:, :4] @ np.linalg.inv(split.transform)[:4]
    assert split.projector_norm == pytest.approx(np.linalg.norm(projector, 2), rel=1e-6)
    b, c = rng.standard_normal((9, 2)), rng.standard_normal((3, 9))
    finite, fading = split.impulse_response(b, c, 12)
    for k in range(12):
        assert np.allclose(c @ np.linalg.matrix_power(a, k) @ b, finite[k] + fading[k], atol=1e-8)
    assert not np.any(finite[4:])
    d = split.drazin_inverse()
    assert np.allclose(a @ d, d @ a, atol=1e-9)
    assert np.allclose(d @ a @ d, d, atol=1e-8)


def test_fitting_owns_up_to_the_ambiguity_band():
    a = rotated(scipy.linalg.block_diag(np.eye(40, k=1), 1e-3), np.random.default_rng(2))
    split = fitting(a)
    assert split.verdict is None
    assert len(split.ambiguous) == 1
    assert split.ambiguity > 0.4
    assert split.core.item() == pytest.approx(1e-3, rel=1e-6)
    assert fitting(np.diag([0.5, 0.2])).nil_order == 0
    assert fitting(np.zeros((2, 2))).index == 1


def test_of_normal_matrices_the_distance_to_defective_is_half_the_gap():
    rng = np.random.default_rng(6)
    for _ in range(20):
        values = rng.uniform(-1, 1, 6)
        gap = np.diff(np.sort(values)).min()
        found = diagonalizability(rotated(np.diag(values), rng))
        assert found.distance == pytest.approx((gap / 2, gap / 2), rel=1e-6)
        assert found.verdict is True
        assert found.condition == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_verdicts_of_rounded_weights(dtype):
    """A register beside nothing or beside one fading mode, stored in a short format."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(23)
    for k in range(16):
        n = int(rng.integers(2, 24))
        nil = jordan_matrix([n - n // 3, n // 3] if n > 2 else [n])
        a = rotated(nil if k % 2 else scipy.linalg.block_diag(nil, 0.9), rng)
        stored = torch.tensor(a).to(getattr(torch, dtype))
        own = 20 * len(a) * EPS * np.linalg.norm(a, 2)
        found = nilpotency(stored, uncertainty=rounding_uncertainty(stored, stored.dtype) + own)
        assert found.verdict in (None, bool(k % 2))


@pytest.mark.parametrize(
    ("matrix", "verdict"),
    [
        (jordan_matrix([3, 3, 2, 1], 2.0), False),
        (jordan_matrix([2, 1, 1], [5.0, 5.0, -1.0]), False),
        (np.kron(np.eye(3), [[0.3, 1], [-1, 0.3]]) + np.kron(np.eye(3, k=1), np.eye(2)), False),
        (scipy.linalg.block_diag(np.eye(4), jordan_matrix([2], 3.0)), False),
        (np.diag([2.0, 2, 2, 0.5, 0.5, -1]), True),
        (np.diag(1j + 1e-4 * np.exp(1j * np.arange(6))), True),
    ],
)
def test_verdicts_at_eigenvalues_other_than_zero(matrix, verdict):
    rng = np.random.default_rng(24)
    for _ in range(5):
        found = diagonalizability(rotated(matrix, rng))
        assert found.verdict is verdict
        assert ("not full" in found.reason) is (verdict is False)


def test_perturbed_defective_matrices_are_found_defective():
    rng = np.random.default_rng(7)
    for _ in range(20):
        sizes = [2, *rng.integers(1, 5, int(rng.integers(0, 4)))]
        a = rotated(jordan_matrix(sizes, rng.choice([-3.0, -1, 1, 2, 5], len(sizes))), rng)
        size = 10 ** rng.uniform(-12, -4)
        noise = rng.standard_normal(a.shape)
        found = diagonalizability(a + size * noise / np.linalg.norm(noise, 2), uncertainty=size)
        assert found.distance[0] <= size * (1 + 1e-9)
        assert found.verdict is not True


def test_the_identity_is_diagonalizable_at_distance_zero():
    found = diagonalizability(np.eye(5))
    assert found.verdict is True
    assert found.distance == (0.0, 0.0)
    assert "full eigenspace" in found.reason
    assert jordan_structure(rotated(np.diag([2.0, 2, 2, 1]), np.random.default_rng(0))).weyr == ((3,), (1,))


def test_jordan_structure_of_real_and_complex_blocks():
    pair = np.array([[0.0, 1], [-1, 0]])
    a = scipy.linalg.block_diag(
        np.kron(np.eye(3), pair) + np.kron(np.eye(3, k=1), np.eye(2)), jordan_matrix([2, 1], 0.3)
    )
    found = jordan_structure(rotated(a, np.random.default_rng(8)))
    assert found.verdict is True
    assert sorted(found.weyr) == [(1, 1, 1), (1, 1, 1), (2, 1)]
    assert weyr_characteristic(a, 0.3).jordan == (2, 1)
    assert weyr_characteristic(a, 1j).weyr == (1, 1, 1)
    assert weyr_characteristic(a, 5.0).weyr == ()


def test_pseudospectra_of_a_shift_are_discs():
    n = 24
    portrait = pseudospectrum(rotated(np.eye(n, k=1), np.random.default_rng(0)), box=(-1, 1, -1, 1), points=9)
    grid = portrait.real[None] + 1j * portrait.imag[:, None]
    plain = [np.linalg.svd(z * np.eye(n) - np.eye(n, k=1), compute_uv=False)[-1] for z in grid.ravel()]
    assert np.allclose(portrait.sigma.ravel(), plain, atol=1e-13)
    assert portrait.radius(1e-10) == pytest.approx(1e-10 ** (1 / n), rel=0.05)
    fine = portrait.refine(1e-3)
    assert fine.sigma.shape == (17, 17)
    assert np.array_equal(fine.sigma[::2, ::2], portrait.sigma)


def test_inverse_iteration_agrees_with_the_svd():
    from solomonic.realization._resolvent import sigma_min

    rng = np.random.default_rng(1)
    t = np.triu(rng.standard_normal((60, 60)) + 1j * rng.standard_normal((60, 60))) / 8
    before = t.copy(order="F")
    t = np.asfortranarray(t)
    points = np.array([0.1, 0.5j, -1 + 1j])
    plain = [np.linalg.svd(t - z * np.eye(60), compute_uv=False)[-1] for z in points]
    assert np.allclose(sigma_min(t, points), plain, rtol=1e-2)
    assert np.array_equal(t, before)


def test_kreiss_bracket_against_powers_and_a_closed_search():
    a = np.array([[0.5, 10.0], [0.0, 0.5]])
    found = kreiss_constant(a)
    r = 1 + np.geomspace(1e-3, 1e3, 4001)
    plain = max((x - 1) / np.linalg.svd(x * np.eye(2) - a, compute_uv=False)[-1] for x in r)
    assert found.lower == pytest.approx(plain, rel=1e-4)
    assert found.upper <= 1.06 * found.lower
    powers = max(np.linalg.norm(np.linalg.matrix_power(a, k), 2) for k in range(60))
    assert found.transient[0] <= powers <= found.transient[1]
    assert kreiss_constant(np.diag([0.5, -0.3])).upper == 1.0
    assert kreiss_constant(np.array([[1.2]])).lower == np.inf


def test_numerical_radius_and_departure_in_closed_form():
    for n in (2, 5, 9):
        shift = np.eye(n, k=1)
        found = numerical_radius(shift)
        assert found.lower <= np.cos(np.pi / (n + 1)) + 1e-14
        assert found.upper >= np.cos(np.pi / (n + 1)) - 1e-14
        assert departure_from_normality(shift) == pytest.approx(np.sqrt(n - 1), rel=1e-14)
        turned = rotated(shift, np.random.default_rng(n))
        eigenvalues = scipy.linalg.schur(turned.astype(complex))[0].diagonal()  # of modulus eps^(1/n), not 0
        total = departure_from_normality(turned) ** 2 + np.sum(np.abs(eigenvalues) ** 2)
        assert total == pytest.approx(n - 1, rel=1e-13)
    assert numerical_radius(np.diag([1j, -2.0])).upper == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_rounding_bound_holds(dtype):
    torch = pytest.importorskip("torch")
    true = torch.tensor(np.random.default_rng(0).standard_normal((20, 30)) * 10.0 ** -np.arange(30))
    stored = true.to(getattr(torch, dtype))
    error = np.linalg.norm((true - stored.double()).numpy(), 2)
    bound = rounding_uncertainty(stored, stored.dtype)
    assert error <= bound <= 30 * error


@pytest.mark.parametrize(
    "function", [nilpotency, fitting, diagonalizability, jordan_structure, weyr_characteristic, pseudospectrum,
                 kreiss_constant, numerical_radius, departure_from_normality]
)  # fmt: skip
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.ones((2, 3)), ValueError, r"A: expected a square matrix, got shape \[2, 3\]"),
        (np.ones(3), ValueError, r"A: expected 2 dimensions, got shape \[3\]"),
        (np.zeros((0, 0)), ValueError, "A: expected a non-empty array"),
        (np.array([[np.nan, 1], [0, 1]]), ValueError, "A: expected finite numbers, got 1 entries"),
        (np.array([[np.inf, 1], [0, 1]]), ValueError, "A: expected finite numbers"),
        (np.array([[1, "a"], [0, 1]], dtype=object), TypeError, "A: expected an array of numbers, got dtype object"),
        ([[1, 2], [3]], ValueError, "A: expected a rectangular array"),
        ("matrix", TypeError, "A: expected an array of numbers"),
    ],
)
def test_bad_matrices_are_named(function, value, error, words):
    with pytest.raises(error, match=words):
        function(value)


def test_bad_arguments_are_named():
    for bad, error in ((-1.0, ValueError), (np.nan, ValueError), ("much", TypeError)):
        with pytest.raises(error, match="uncertainty: expected a bound of at least 0"):
            nilpotency(np.eye(2), uncertainty=bad)  # pyright: ignore
    for bad, error in (("x", TypeError), (np.nan, ValueError), ([1.0, 2.0], ValueError)):
        with pytest.raises(error, match="eigenvalue: expected"):
            weyr_characteristic(np.eye(2), bad)  # pyright: ignore
    with pytest.raises(ValueError, match="dtype: expected one of float64"):
        rounding_uncertainty(np.eye(2), "int4")
    with pytest.raises(ValueError, match="box: expected low < high"):
        pseudospectrum(np.eye(2), box=(1, 0, 0, 1))
    for sizes in ([2, -1], [2, 1.5]):
        with pytest.raises(ValueError, match="sizes: expected block sizes"):
            jordan_matrix(sizes)
    with pytest.raises(ValueError, match="eigenvalues: expected one, or one for each of the 3 blocks, got 2"):
        jordan_matrix([1, 1, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="core: expected one of"):
        known_structure(np.random.default_rng(0), core="many")
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="A: expected a tensor that can be read on the CPU"):
        nilpotency(torch.empty((2, 2), device="meta"))


def test_scaling_and_transposing_do_not_change_the_answer():
    rng = np.random.default_rng(14)
    truth = known_structure(rng, largest=40)
    a = rotated(truth.matrix, rng)
    for other in (a.T, 2.0**200 * a, 2.0**-200 * a, a * 1j):
        assert nilpotency(other).weyr == truth.weyr
    base, scaled = nilpotency(a).distance, nilpotency(2.0**100 * a).distance
    assert np.allclose(np.array(scaled) / 2.0**100, base, rtol=1e-6)
