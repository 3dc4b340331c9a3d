"""Results come back from their files as they were, and a file that is damaged or of another kind is named."""

# python-control annotates the matrices of a StateSpace as lists.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import dataclasses
import zipfile

import control
import numpy as np
import pytest

from solomonic import realization
from solomonic.realization import (
    Gramians,
    JordanStructure,
    NilpotencyCertificate,
    canonical_form,
    diagonalizability,
    equivalent,
    find_changes,
    fitting,
    forward_model,
    gramians,
    ho_kalman,
    jordan_structure,
    kalman_filter,
    kalman_smoother,
    kreiss_constant,
    nilpotency,
    numerical_radius,
    okid,
    positive_real,
    pseudospectrum,
    shift_register,
    spectral_factor,
    weyr_characteristic,
    whiteness,
)
from solomonic.realization._results import Result
from solomonic.realization.gallery import jordan_matrix

SYSTEM = (np.array([[0.5, 1.0, 0], [0, 0.2, 0.3], [0, 0, -0.4]]), np.eye(3)[:, 1:], np.ones((2, 3)))
COMPLEX = jordan_matrix([3, 1, 1], [0.5j, 0.5j, 2.0])
NOISE = np.random.default_rng(0).standard_normal((200, 2))
MARKOV = np.array([0.5**k + (-0.3) ** k for k in range(12)])[:, None, None]
PROCESS = (np.array([[0.7]]), np.array([[1.0]]), np.array([[0.6]]), np.array([[1.5]]))
RESULTS = {
    "nilpotency": lambda: nilpotency(np.diag([1.0, 1e-9, 0], 1)),
    "nilpotency, zero": lambda: nilpotency(np.zeros((2, 2))),
    "row": lambda: nilpotency(np.eye(3, k=1)).table[0],
    "undecided": lambda: nilpotency(np.eye(8, k=1) + 1e-6 * np.eye(8)[::-1], uncertainty=1e-6),
    "fitting": lambda: fitting(SYSTEM[0]),
    "fitting, complex": lambda: fitting(COMPLEX),
    "weyr": lambda: weyr_characteristic(COMPLEX, 0.5j),
    "diagonalizability": lambda: diagonalizability(COMPLEX),
    "jordan": lambda: jordan_structure(COMPLEX),
    "cluster": lambda: jordan_structure(COMPLEX).clusters[-1],
    "pseudospectrum": lambda: pseudospectrum(SYSTEM[0], points=5),
    "kreiss": lambda: kreiss_constant(SYSTEM[0]),
    "kreiss, unstable": lambda: kreiss_constant(np.array([[1.2]])),
    "numerical radius": lambda: numerical_radius(COMPLEX),
    "form": lambda: canonical_form(control.StateSpace(*SYSTEM, np.eye(2), 0.25), "brunovsky"),
    "form, continuous": lambda: canonical_form(control.StateSpace(-np.eye(2), np.eye(2), np.eye(2), 0, 0), "schur"),
    "equivalence": lambda: equivalent(SYSTEM, SYSTEM),
    "no transform": lambda: equivalent(SYSTEM, (*SYSTEM[:2], 2 * SYSTEM[2])),
    "gramians": lambda: gramians(SYSTEM),
    "cut": lambda: shift_register(2, 4).gramians(2),
    "ho-kalman": lambda: ho_kalman(MARKOV, 2),
    "okid": lambda: okid(NOISE[:, :1], NOISE[:, 1:], order=2),
    "whiteness": lambda: whiteness(NOISE, permutations=20, rng=0),
    "positive real": lambda: positive_real(*PROCESS),
    "spectral factor": lambda: spectral_factor(*PROCESS),
    "changes": lambda: find_changes(np.r_[NOISE[:, 0], 9 * NOISE[:, 1]], rng=0),
    "filtered": lambda: kalman_filter(forward_model(*PROCESS), NOISE[:30, :1]),
    "smoothed": lambda: kalman_smoother(forward_model(*PROCESS), NOISE[:30, :1]),
}


#: Results that take a fit to make: they come back from files in the tests of what makes them.
_TESTED = {
    "test_bilinear.py": ["BilinearSystem", "LowRankGramians", "PartialRealization", "SelectiveLayer", "Truncation"],
    "test_bilinear_series.py": ["RationalSeries"],
    "test_bilinear_identification.py": ["BilinearFit", "LayerFit"],
    "test_identify.py": ["IdentificationReport", "InnovationModel", "OrderEvidence"],
    "test_stochastic.py": ["FaurreInterval", "StochasticModel"],
    "test_textures.py": ["DynamicTexture", "ResidualStack"],
}
ELSEWHERE = {name: file for file, names in _TESTED.items() for name in names}


def assert_same(first, second):
    """The same types all the way down, arrays bit by bit."""
    assert type(first) is type(second)
    if isinstance(first, Result):
        for each in dataclasses.fields(first):  # pyright: ignore[reportArgumentType]
            assert_same(getattr(first, each.name), getattr(second, each.name))
    elif isinstance(first, tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    elif isinstance(first, control.StateSpace):
        assert (first.dt, type(first.dt)) == (second.dt, type(second.dt))
        assert all(np.array_equal(getattr(first, m), getattr(second, m)) for m in "ABCD")
    else:
        assert first == second or (first != first and second != second)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_comes_back_as_it_was(name, tmp_path):
    result = RESULTS[name]()
    path = result.save(tmp_path / "result")
    assert path == tmp_path / "result.npz"
    back = type(result).load(path)
    assert_same(back, result)
    assert repr(back) == repr(result)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_itself_in_a_notebook(name):
    html = RESULTS[name]()._repr_html_()
    assert html.startswith("<table>")
    assert html.endswith("</table>")
    assert len(html) < 4000


def test_every_result_is_tried_here():
    tried = {type(make()).__name__ for make in RESULTS.values()}
    kinds = {name for name, kind in Result._kinds.items() if issubclass(kind, Result)}
    assert kinds == tried | set(ELSEWHERE)
    assert not tried & set(ELSEWHERE)
    assert tried <= set(realization.__all__)


def test_files_that_do_not_fit_are_named(tmp_path):
    certificate = nilpotency(np.eye(4, k=1))
    path = certificate.save(tmp_path / "c.npz")
    with pytest.raises(ValueError, match=r"path: expected a saved Gramians, got a saved 'Nilpot"):
        Gramians.load(path)
    with pytest.raises(FileNotFoundError, match=r"path: expected a file written by save, got .*gone"):
        NilpotencyCertificate.load(tmp_path / "gone")
    whole = path.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("not a result")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "arrays.npz", A=np.eye(2))
    for name in ("cut", "text", "empty", "arrays"):
        with pytest.raises(ValueError, match=rf"path: expected a file written by NilpotencyCertificate.save, .*{name}"):
            NilpotencyCertificate.load(tmp_path / f"{name}.npz")


def test_a_bit_that_flipped_is_noticed(tmp_path):
    path = pseudospectrum(np.eye(4, k=1), points=21).save(tmp_path / "p.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: expected a file written by Pseudospectrum\.save"):
        type(pseudospectrum(np.eye(2), points=2)).load(path)


@pytest.mark.parametrize(
    ("old", "new"), [('"verdict"', '"verdikt"'), ("EigenvalueCluster", "Popen"), ("array_0", "array_9")]
)
def test_content_of_another_version_is_named(old, new, tmp_path):
    path = jordan_structure(COMPLEX).save(tmp_path / "j.npz")
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    arrays["__about__"] = np.array(str(arrays["__about__"]).replace(old, new))
    np.savez(path, **arrays)
    assert zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match=r"path: expected a whole JordanStructure, got .*save the result again"):
        JordanStructure.load(path)
