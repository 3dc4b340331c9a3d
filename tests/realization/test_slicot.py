"""SLICOT's printed results to the printed digits, and its routines beside ours on the benchmark collection.

Most forms leave a freedom (signs, orthogonal blocks, a whole change of states). So the test finds the change T from our
result to the printed one and asks what remains of A T = T A_p, B = T B_p, C T = C_p: with printed entries that are
wrong by up to half a unit of their last digit, no more than that times what multiplies them.
"""

# python-control annotates the matrices of a StateSpace as lists.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOperatorIssue=false, reportOptionalOperand=false

import control
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from solomonic.realization import canonical_form, hankel_singular_values, minimal

HALF = 5e-5  # half a unit of the fourth decimal, the last one printed


def numbers(shared, name):
    lines = (shared / "data" / "slicot" / "examples" / name).read_text().splitlines()[1:]
    return [line.split() for line in lines if line.strip()]


def floats(rows):
    return np.array([[float(x.replace("D", "E")) for x in row] for row in rows])


def printed(shared, name, after, rows):
    lines = (shared / "data" / "slicot" / "examples" / f"{name}.res").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if after in line)
    return floats([line.split() for line in lines[start + 1 :] if line.strip()][:rows])


def change_to(ours, theirs):
    """T of least squares from our (A, B, C) to the printed one, after checking that what remains is print rounding."""
    (a, b, c), (pa, pb, pc) = ours, theirs
    n = len(a)
    eye = np.eye(n)
    rows = np.vstack([np.kron(a, eye) - np.kron(eye, pa.T), np.kron(eye, pb.T), np.kron(c, eye)])
    right = np.concatenate([np.zeros(n * n), b.ravel(), pc.ravel()])
    solution = np.linalg.lstsq(rows, right, rcond=None)[0]
    t = solution.reshape(n, n)
    left = np.linalg.norm(rows @ solution - right)
    sums = np.abs(t).sum(1)
    entries = np.concatenate([np.repeat(sums, n), np.repeat(sums, pb.shape[1]), np.ones(pc.size)])
    assert left <= HALF * np.linalg.norm(entries)
    return t


def test_mb03rd_block_diagonalisation(shared):
    a = floats(numbers(shared, "MB03RD.dat")[1:9])
    result = canonical_form((a, np.ones((8, 1)), np.ones((1, 8))), "modal")
    assert result.indices == (6, 2)
    assert result.residual < 1e-14
    blocks = printed(shared, "MB03RD", "block-diagonal matrix is", 8)
    x = printed(shared, "MB03RD", "transformation matrix is", 8)
    back = np.linalg.inv(result.transform)
    between = back @ x  # from our basis to the printed one: it must not mix the blocks
    slack = HALF * np.abs(back).sum(1)
    assert np.all(np.abs(between[:6, 6:]) <= slack[:6, None])
    assert np.all(np.abs(between[6:, :6]) <= slack[6:, None])
    for block in (slice(0, 6), slice(6, 8)):
        ours, theirs, y = result.system.A[block, block], blocks[block, block], between[block, block]
        gap = np.abs(ours @ y - y @ theirs)
        assert np.all(gap <= HALF * np.abs(y).sum(1)[:, None] + np.abs(ours) @ slack[block][:, None]
                      + slack[block][:, None] * np.abs(theirs).sum(0))  # fmt: skip


@pytest.mark.parametrize("name", ["AB01ND", "TB01UD"])
def test_ab01nd_and_tb01ud_controllable_part(shared, name):
    rows = numbers(shared, f"{name}.dat")
    a, b = floats(rows[1:4]), floats(rows[4:6]).T
    c = floats(rows[6:8]) if name == "TB01UD" else np.eye(3)
    result = canonical_form((a, b, c), "staircase")
    assert result.indices == (2,)
    z = printed(shared, name, "similarity transformation", 3)
    theirs = (
        printed(shared, name, "dynamics matrix", 2),
        printed(shared, name, "input/state matrix B", 2),
        printed(shared, name, "output/state matrix C", 2) if name == "TB01UD" else z[:, :2],
    )
    turn = change_to((result.system.A[:2, :2], result.system.B[:2], result.system.C[:, :2]), theirs)
    assert np.allclose(turn.T @ turn, np.eye(2), atol=4 * HALF)
    assert np.allclose(np.abs(z[:, 2]), np.abs(result.transform[:, 2]), atol=HALF)


def test_ab01od_staircase(shared):
    rows = numbers(shared, "AB01OD.dat")
    a, b = floats(rows[1:6]).T, floats(rows[6:11])  # this example's program reads A by columns
    result = canonical_form((a, b, np.eye(5)), "staircase")
    assert result.indices == (2, 2, 1)
    theirs = (printed(shared, "AB01OD", "state transition matrix", 5), printed(shared, "AB01OD", "input matrix", 5))
    turn = change_to((result.system.A, result.system.B, np.zeros((0, 5))), (*theirs, np.zeros((0, 5))))
    assert np.allclose(turn.T @ turn, np.eye(5), atol=4 * HALF)
    assert np.allclose(turn, scipy.linalg.block_diag(turn[:2, :2], turn[2:4, 2:4], turn[4:, 4:]), atol=2 * HALF)


def test_tb01pd_minimal_realization(shared):
    rows = numbers(shared, "TB01PD.dat")
    a, b, c = floats(rows[1:4]), floats([rows[4]]).T, floats(rows[5:7])
    found = minimal(control.StateSpace(a, b, c, np.zeros((2, 1))))
    theirs = [printed(shared, "TB01PD", f"{what} matrix of a minimal", k) for what, k in
              (("state dynamics", 3), ("input/state", 3), ("state/output", 2))]  # fmt: skip
    assert found.nstates == len(theirs[0]) == 3
    change_to((found.A, found.B, found.C), theirs)


def test_td04ad_minimal_realization_of_a_transfer_matrix(shared):
    rows = numbers(shared, "TD04AD.dat")
    denominators, numerators = floats(rows[2:4]), floats(rows[4:8]).reshape(2, 2, 4)
    a, b, c, d = [], np.zeros((12, 2)), np.zeros((2, 12)), np.zeros((2, 2))
    for k, (i, j) in enumerate((i, j) for i in range(2) for j in range(2)):
        den = denominators[i] / denominators[i][0]
        d[i, j] = numerators[i, j][0] / denominators[i][0]
        states = slice(3 * k, 3 * k + 3)
        a.append(np.vstack([-den[1:], np.eye(2, 3)]))  # companion by rows, the input into the first state
        b[3 * k, j] = 1
        c[i, states] = numerators[i, j][1:] / denominators[i][0] - d[i, j] * den[1:]
    found = minimal(control.StateSpace(scipy.linalg.block_diag(*a), b, c, d))
    assert found.nstates == 3
    printed_as = (("dynamics", "A", 3), ("input/state", "B", 3), ("state/output", "C", 2), ("transmission", "D", 2))
    *theirs, feed = [printed(shared, "TD04AD", f"{what} matrix {letter}", k) for what, letter, k in printed_as]
    change_to((found.A, found.B, found.C), theirs)
    assert np.allclose(found.D, feed, atol=HALF)


@pytest.mark.parametrize(("name", "after"), [("AB09AD", "singular values HSV"), ("AB13AD", "of ALPHA-projection are")])
def test_ab09ad_and_ab13ad_hankel_singular_values(shared, name, after):
    rows = numbers(shared, f"{name}.dat")
    sys = control.StateSpace(floats(rows[1:8]), floats(rows[8:15]), floats(rows[15:18]), np.zeros((3, 2)))
    assert np.allclose(hankel_singular_values(sys), printed(shared, name, after, 1)[0], rtol=0, atol=HALF)
    if name == "AB09AD":
        full = canonical_form(sys, "balanced").system
        reduced = [printed(shared, name, f"reduced {what} matrix", k) for what, k in
                   (("state dynamics", 5), ("input/state", 5), ("state/output", 3))]  # fmt: skip
        change_to((full.A[:5, :5], full.B[:5], full.C[:, :5]), reduced)
    else:
        norm = hankel_singular_values(sys)[0]
        assert norm == pytest.approx(2.51388, abs=5e-6)


def collection(shared):
    data = np.load(shared / "data" / "slicot" / "ctdsx_dtdsx_default.npz")
    for key in sorted({k[:-2] for k in data.files}):
        e, a, b, c, d = (data[f"{key}_{m}"] for m in "EABCD")
        yield key, control.StateSpace(
            np.linalg.solve(e, a), np.linalg.solve(e, b), c, d, True if key.startswith("D") else 0,
            remove_useless_states=False,
        )  # fmt: skip


def stable(key, sys):
    # CTDSX 4.2 has a pole at 0, which the eigenvalue solver may put on either side
    poles = sys.poles()
    return np.abs(poles).max() < 1 if key.startswith("D") else poles.real.max() < -1e-12


def assert_balanced(system, tolerance):
    """Gramians of the system by scipy's solvers, which the library does not use, relative to the largest."""
    a, b, c = system.A, system.B, system.C
    if system.dt == 0:
        p = scipy.linalg.solve_continuous_lyapunov(a, -b @ b.T)
        q = scipy.linalg.solve_continuous_lyapunov(a.T, -c.T @ c)
    else:
        p = scipy.linalg.solve_discrete_lyapunov(a, b @ b.T)
        q = scipy.linalg.solve_discrete_lyapunov(a.T, c.T @ c)
    sigma = np.diag(p)
    assert np.abs(p - np.diag(sigma)).max() <= tolerance * sigma.max()
    assert np.abs(q - p).max() <= tolerance * sigma.max()


def test_balanced_gramians_of_the_collection_are_equal_and_diagonal(shared):
    seen = []
    for key, sys in collection(shared):
        if not stable(key, sys):
            continue
        seen.append(key)
        result = canonical_form(sys, "balanced")
        assert_balanced(result.system, 1e-10)
        assert np.allclose(result.system(1j), sys(1j), rtol=1e-7, atol=1e-9 * np.abs(sys(1j)).max())
    assert sum(key.startswith("D") for key in seen) == 5
    assert {"CTDSX_3_2", "CTDSX_4_1"} < set(seen)


def test_hankel_singular_values_of_the_collection_are_those_of_ab13ad(shared):
    ctrlsys = pytest.importorskip("ctrlsys")
    for key, sys in collection(shared):
        if not stable(key, sys):
            continue
        n, m = sys.B.shape
        kind, alpha = ("D", 1 - 1e-12) if key.startswith("D") else ("C", 0.0)
        arrays = [np.array(x, order="F") for x in (sys.A, sys.B, sys.C)]
        _, count, theirs, info = ctrlsys.ab13ad(kind, "N", n, m, len(sys.C), alpha, *arrays)
        assert (count, info) == (n, 0)
        assert np.allclose(hankel_singular_values(sys), theirs, rtol=0, atol=1e-8 * theirs[0]), key


def test_minimal_orders_of_the_collection_are_those_of_tb01pd(shared):
    ctrlsys = pytest.importorskip("ctrlsys")
    for key, sys in collection(shared):
        n, m = sys.B.shape
        p = len(sys.C)
        b, c = np.zeros((n, max(m, p)), order="F"), np.zeros((max(m, p), n), order="F")
        b[:, :m], c[:p] = sys.B, sys.C  # dead inputs and outputs: the routine wants as many of the one as of the other
        theirs = ctrlsys.tb01pd("M", "S", np.array(sys.A, order="F"), b, c, 0.0)[3]
        assert minimal(sys).nstates == theirs, key


def test_dtdsx_1_1_is_neither_controllable_nor_observable(shared):
    sys = dict(collection(shared))["DTDSX_1_1"]
    assert np.array_equal(sys.A, [[4, 3], [-4.5, -3.5]])
    assert minimal(sys).nstates < 2
    assert canonical_form(sys, "staircase").indices == (1,)
    with pytest.raises(ValueError, match="controllable system"):
        canonical_form(sys, "controllable")


def test_a_pole_on_the_boundary_is_not_stable(shared):
    sys = dict(collection(shared))["CTDSX_4_2"]
    with pytest.raises(ValueError, match="expected a stable system"):
        hankel_singular_values(sys)


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
