"""SLICOT's printed results: what is invariant under the freedom each form leaves, to the printed digits."""

# python-control annotates the matrices of a StateSpace as lists.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportOptionalOperand=false

import control
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from solomonic.realization import canonical_form, hankel_singular_values, minimal


def assert_balanced(result, tolerance):
    """Gramians of the result by scipy's solver, which the library does not use, relative to the largest."""
    a, b, c = result.system.A, result.system.B, result.system.C
    p = scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
    q = scipy.linalg.solve_discrete_lyapunov(a.T, c.T @ c)
    sigma = np.diag(p)
    assert np.abs(p - np.diag(sigma)).max() <= tolerance * sigma.max()
    assert np.abs(q - p).max() <= tolerance * sigma.max()


def numbers(shared, name):
    lines = (shared / "data" / "slicot" / "examples" / name).read_text().splitlines()[1:]
    return [line.split() for line in lines if line.strip()]


def floats(rows):
    return np.array([[float(x.replace("D", "E")) for x in row] for row in rows])


def printed(shared, name, after, rows):
    lines = (shared / "data" / "slicot" / "examples" / f"{name}.res").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if after in line)
    return floats([line.split() for line in lines[start + 1 :] if line.strip()][:rows])


def block_singular_values(matrix, rows, columns):
    r, c = np.cumsum([0, *rows]), np.cumsum([0, *columns])
    return [
        np.linalg.svd(matrix[r[i] : r[i + 1], c[j] : c[j + 1]], compute_uv=False)
        for i in range(len(rows))
        for j in range(len(columns))
    ]


def same_blocks(mine, theirs, rows, columns):
    for a, b in zip(
        block_singular_values(mine, rows, columns), block_singular_values(theirs, rows, columns), strict=True
    ):
        assert np.allclose(a, b, atol=6e-4, rtol=1e-5)


def test_mb03rd_block_diagonalisation(shared):
    a = floats(numbers(shared, "MB03RD.dat")[1:9])
    result = canonical_form((a, np.ones((8, 1)), np.ones((1, 8))), "modal")
    assert result.indices == (6, 2)
    assert result.residual < 1e-14
    theirs = printed(shared, "MB03RD", "block-diagonal matrix is", 8)
    ours = result.system.A
    assert np.allclose(np.sort(np.linalg.eigvals(ours[6:, 6:]).real), np.diag(theirs)[6:], atol=1e-4)
    assert np.trace(ours[:6, :6]) == pytest.approx(np.trace(theirs[:6, :6]), abs=3e-4)


@pytest.mark.parametrize("name", ["AB01ND", "TB01UD"])
def test_ab01nd_and_tb01ud_controllable_part(shared, name):
    rows = numbers(shared, f"{name}.dat")
    a, b = floats(rows[1:4]), floats(rows[4:6]).T
    c = floats(rows[6:8]) if name == "TB01UD" else np.eye(3)
    result = canonical_form((a, b, c), "staircase")
    assert result.indices == (2,)
    same_blocks(result.system.A[:2, :2], printed(shared, name, "dynamics matrix", 2), (2,), (2,))
    same_blocks(result.system.B[:2], printed(shared, name, "input/state matrix B", 2), (2,), (2,))
    if name == "TB01UD":
        same_blocks(result.system.C[:, :2], printed(shared, name, "output/state matrix C", 2), (2,), (2,))
    z = printed(shared, name, "similarity transformation", 3)
    assert np.allclose(np.abs(z[:, 2]), np.abs(result.transform[:, 2]), atol=1e-4)


def test_ab01od_staircase(shared):
    rows = numbers(shared, "AB01OD.dat")
    a, b = floats(rows[1:6]).T, floats(rows[6:11])  # this example's program reads A by columns
    result = canonical_form((a, b, np.eye(5)), "staircase")
    assert result.indices == (2, 2, 1)
    same_blocks(result.system.A, printed(shared, "AB01OD", "state transition matrix", 5), (2, 2, 1), (2, 2, 1))
    same_blocks(result.system.B, printed(shared, "AB01OD", "input matrix", 5), (2, 2, 1), (2,))


def test_tb01pd_minimal_realization(shared):
    rows = numbers(shared, "TB01PD.dat")
    a, b, c = floats(rows[1:4]), floats([rows[4]]).T, floats(rows[5:7])
    found = minimal(control.StateSpace(a, b, c, np.zeros((2, 1))))
    theirs = [printed(shared, "TB01PD", f"{what} matrix of a minimal", k) for what, k in
              (("state dynamics", 3), ("input/state", 3), ("state/output", 2))]  # fmt: skip
    assert found.nstates == len(theirs[0]) == 3
    other = control.StateSpace(*theirs, np.zeros((2, 1)))
    for z in (0.5j, 2.0 + 1j, -4.0):
        assert np.allclose(found(z), other(z), atol=1e-3)


def test_td04ad_minimal_realization_of_a_transfer_matrix(shared):
    rows = numbers(shared, "TD04AD.dat")
    denominators, numerators = floats(rows[2:4]), floats(rows[4:8]).reshape(2, 2, 4)
    parts = [scipy.signal.tf2ss(numerators[i, j], denominators[i]) for i in range(2) for j in range(2)]
    a = scipy.linalg.block_diag(*(part[0] for part in parts))
    b, c = np.zeros((12, 2)), np.zeros((2, 12))
    for k, part in enumerate(parts):
        b[3 * k : 3 * k + 3, k % 2], c[k // 2, 3 * k : 3 * k + 3] = part[1].ravel(), part[2].ravel()
    d = np.array([part[3].item() for part in parts]).reshape(2, 2)
    found = minimal(control.StateSpace(a, b, c, d))
    assert found.nstates == 3
    printed_as = (("dynamics", "A", 3), ("input/state", "B", 3), ("state/output", "C", 2), ("transmission", "D", 2))
    theirs = [printed(shared, "TD04AD", f"{what} matrix {letter}", k) for what, letter, k in printed_as]
    other = control.StateSpace(*theirs)
    for z in (0.5j, 2.0 + 1j, 3.0):
        assert np.allclose(found(z), other(z), atol=1e-3)


@pytest.mark.parametrize(("name", "after"), [("AB09AD", "singular values HSV"), ("AB13AD", "of ALPHA-projection are")])
def test_ab09ad_and_ab13ad_hankel_singular_values(shared, name, after):
    rows = numbers(shared, f"{name}.dat")
    sys = control.StateSpace(floats(rows[1:8]), floats(rows[8:15]), floats(rows[15:18]), np.zeros((3, 2)))
    assert np.allclose(hankel_singular_values(sys), printed(shared, name, after, 1)[0], atol=6e-5)
    if name == "AB09AD":
        full = canonical_form(sys, "balanced").system
        cut = control.StateSpace(full.A[:5, :5], full.B[:5], full.C[:, :5], full.D)
        reduced = [printed(shared, name, f"reduced {what} matrix", k) for what, k in
                   (("state dynamics", 5), ("input/state", 5), ("state/output", 3))]  # fmt: skip
        theirs = control.StateSpace(*reduced, np.zeros((3, 2)))
        for z in (1j, 0.3j, 5j):
            assert np.allclose(cut(z), theirs(z), atol=2e-3)


def collection(shared):
    data = np.load(shared / "data" / "slicot" / "ctdsx_dtdsx_default.npz")
    for key in sorted({k[:-2] for k in data.files}):
        e, a, b, c, d = (data[f"{key}_{m}"] for m in "EABCD")
        yield key, control.StateSpace(
            np.linalg.solve(e, a), np.linalg.solve(e, b), c, d, True if key.startswith("D") else 0,
            remove_useless_states=False,
        )  # fmt: skip


def test_dtdsx_balanced_gramians_are_equal_and_diagonal(shared):
    seen = 0
    for key, sys in collection(shared):
        if key.startswith("C") or np.abs(sys.poles()).max() >= 1:
            continue
        seen += 1
        result = canonical_form(sys, "balanced")
        assert_balanced(result, 1e-10)
        assert np.allclose(result.system(1j), sys(1j), rtol=1e-7, atol=1e-9 * np.abs(sys(1j)).max())
    assert seen >= 4


def test_dtdsx_1_1_is_neither_controllable_nor_observable(shared):
    sys = dict(collection(shared))["DTDSX_1_1"]
    assert np.array_equal(sys.A, [[4, 3], [-4.5, -3.5]])
    assert minimal(sys).nstates < 2
    assert canonical_form(sys, "staircase").indices == (1,)
    with pytest.raises(ValueError, match="controllable system"):
        canonical_form(sys, "controllable")


def test_every_benchmark_system_survives_the_orthogonal_forms(shared):
    for key, sys in collection(shared):
        for form in ("schur", "staircase"):
            assert canonical_form(sys, form).residual < 1e-12, (key, form)


def test_slycot_agrees_on_the_controllable_dimension(shared):
    slycot = pytest.importorskip("slycot")
    for key, sys in collection(shared):
        n, m = sys.B.shape
        _, _, count, *_ = slycot.ab01nd(n, m, sys.A.copy(), sys.B.copy(), jobz="N", tol=1e-10)
        ours = canonical_form(sys, "staircase").indices
        if key != "CTDSX_3_2" and n < 60:
            assert sum(ours) == count, key
