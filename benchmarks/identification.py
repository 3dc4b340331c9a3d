"""Fits of measured records and times, beside SLICOT (ctrlsys), nfoursid and SIPPY (sippy_unipi) where they are
installed; CVA on ARMA processes.

Run ``python benchmarks/identification.py --data FOLDER`` (with the folders slicot, daisy and nonlinear in it), or name
parts: ``records arma time``. The initial state of a free run is fitted to its first samples; fits are
100 (1 - |y - y_hat| / |y - mean|). Ours takes its own horizons; peers get 15 samples, on centred data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # times are those of one thread

import numpy as np
import scipy.io
import scipy.linalg
import scipy.signal

from solomonic.realization import identify


def fit(y, run):
    return 100 * (1 - np.linalg.norm(y - run) / np.linalg.norm(y - y.mean(0)))


def mat(path):
    return next(value for key, value in scipy.io.loadmat(path).items() if not key.startswith("_"))


def ib01(data):
    text = (data / "slicot" / "examples" / "IB01BD.dat").read_text().split("\n", 3)[3]
    values = np.array([float(x) for x in text.split()])
    return values[:1000, None], values[1000:2000, None]


def slicot(u, y, n, horizon):
    """SLICOT's IB01AD, IB01BD and IB01CD; they write into their inputs."""
    import ctrlsys

    u, y = np.array(u, order="F"), np.array(y, order="F")
    m, p = u.shape[1], y.shape[1]
    r = ctrlsys.ib01ad("M", "C", "M", "O", "N", "N", horizon, m, p, u, y, 0.0, -1.0)[1]
    a, c, b, d, *_ = ctrlsys.ib01bd("C", "A", "K", horizon, n, m, p, len(u), r, 0.0)
    copies = [np.asfortranarray(x.copy()) for x in (a, b, c, d)]
    _, b, d, *_ = ctrlsys.ib01cd("X", "C", "D", n, m, p, *copies, u, y, 0.0)
    return a, b, c, d


def nfoursid(u, y, n, horizon):
    """PO-MOESP of nfoursid."""
    pandas, package = importlib.import_module("pandas"), importlib.import_module("nfoursid.nfoursid")
    ins, outs = [f"u{j}" for j in range(u.shape[1])], [f"y{j}" for j in range(y.shape[1])]
    method = package.NFourSID(
        pandas.DataFrame(np.hstack([u, y]), columns=ins + outs), outs, ins, num_block_rows=horizon
    )
    method.subspace_identification()
    found, _ = method.system_identification(rank=n)
    return found.a, found.b, found.c, found.d


def sippy(method):
    """One of SIPPY's three methods."""

    def run(u, y, n, horizon):
        found = importlib.import_module("sippy_unipi").system_identification(
            y.T, u.T, method, SS_f=horizon, SS_p=horizon, SS_fixed_order=n, SS_D_required=True
        )
        return found.A, found.B, found.C, found.D

    return run


PEERS = {
    "SLICOT": ("ctrlsys", slicot),
    "nfoursid": ("nfoursid", nfoursid),
    **{f"SIPPY {name}": ("sippy_unipi", sippy(name)) for name in ("CVA", "MOESP", "N4SID")},
}


def installed():
    """Peers by name, those that are there."""
    return {name: call for name, (package, call) in PEERS.items() if importlib.util.find_spec(package) is not None}


def records(data):
    """The four records of the table."""
    from solomonic.realization import InnovationModel

    furnace, arm = mat(data / "daisy" / "glassfurnace.mat"), mat(data / "daisy" / "robotArm.mat")
    tanks = np.genfromtxt(data / "nonlinear" / "cascaded_tanks.csv", delimiter=",", skip_header=1)
    k = 2 * len(furnace) // 3
    u, y = ib01(data)
    cases = [
        ("IB01", u, y, u, y, 4, None, 15, "fit >= 89.0 %"),
        ("IB01, horizon", u, y, u, y, 4, 15, 15, "fit >= 89.0 %"),
        (
            "glass furnace",
            furnace[:k, 1:4],
            furnace[:k, 4:],
            furnace[k:, 1:4],
            furnace[k:, 4:],
            7,
            None,
            50,
            ">= 56.5 %",
        ),
        ("robot arm", arm[:, :1], arm[:, 1:], arm[:, :1], arm[:, 1:], 4, None, 50, ">= 95.7 %"),
        *(
            ("tanks", tanks[:, :1], tanks[:, 2:3], tanks[:, 1:2], tanks[:, 3:4], n, None, 50, "RMSE <= 0.67")
            for n in (2, 3, 4)
        ),
    ]
    for name, u, y, u_test, y_test, n, horizon, first, asked in cases:
        rows = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for method in ("cva", "moesp", "n4sid"):
                rows[method] = identify(y, u, order=n, method=method, past=horizon, future=horizon)
            for peer, call in installed().items():
                with contextlib.redirect_stdout(None):
                    a, b, c, d = call(u - u.mean(0), y - y.mean(0), n, horizon or 15)
                p = len(c)
                rows[peer] = InnovationModel(
                    a, b, c, d, np.zeros((n, p)), np.eye(p), y_offset=y.mean(0), u_offset=u.mean(0)
                )
            for method, model in rows.items():
                run = model.simulate(u_test, x0=model.initial_state(y_test, u_test, samples=first))
                rmse = np.sqrt(np.mean((y_test - run) ** 2))
                print(
                    f"{name:14} n={n} {method:11} fit {fit(y_test, run):9.4g} %  RMSE {rmse:9.4g}  "
                    f"radius {model.radius:.4f}  (asked of ours: {asked})"
                )


def roots(rng, n, low, high):
    out = []
    while len(out) < n:
        r = rng.uniform(low, high)
        if n - len(out) >= 2 and rng.random() < 0.6:
            turn = np.exp(1j * rng.uniform(0.1, 3.04))
            out += [r * turn, r / turn]
        else:
            out.append(r * rng.choice([-1, 1]))
    return np.poly(out).real


def arma(trials):
    """Exact one-step error variance of CVA models on ARMA processes of order 2 to 6, against the Kalman filter's."""
    rng, excess = np.random.default_rng(1), []
    for _ in range(trials):
        n = int(rng.integers(2, 7))
        a, b = roots(rng, n, 0.3, 0.97), roots(rng, n, 0.1, 0.95)
        y = scipy.signal.lfilter(b, a, rng.standard_normal(11_000))[1000:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = identify(y)
        gain, c = (b - a)[1:, None], np.eye(1, n)
        truth = np.hstack([-a[1:, None], np.eye(n, n - 1)])
        joint = np.block([[truth, np.zeros((n, model.order))], [model.K @ c, model.A - model.K @ model.C]])
        drive, read = np.vstack([gain, model.K]), np.hstack([c, -model.C])
        excess.append((read @ scipy.linalg.solve_discrete_lyapunov(joint, drive @ drive.T) @ read.T).item())
    print(f"arma: asked at most 2 % above, in the median; got {100 * np.median(excess):.3f} % ({trials} systems)")


def timing(data):
    """One thousand samples, n = 4, horizon 15, one thread: CPU time, the smallest of the runs."""
    u, y = ib01(data)
    u, y = u - u.mean(0), y - y.mean(0)
    peers = installed()

    def best(call, runs):
        times = []
        for _ in range(runs):
            start = time.process_time()
            call(u, y, 4, 15)
            times.append(time.process_time() - start)
        return 1e3 * min(times)

    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        ours = best(lambda u, y, n, horizon: identify(y, u, order=n, past=horizon, future=horizon), 1000)
        others = {name: best(call, 1000 if name == "SLICOT" else 5) for name, call in peers.items()}
    print(f"time: ours {ours:.2f} ms")
    for name, value in others.items():
        asked = "at most 5" if name == "SLICOT" else "below 1"
        print(f"time: {name} {value:.2f} ms; ours takes {ours / value:.3g} times that (asked: {asked})")
    for name, (package, _) in PEERS.items():
        if name not in peers:
            print(f"time: {name} left out, {package} is not installed")


def main() -> int:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    for part in options.parts or ("records", "arma", "time"):
        if part == "arma":
            arma(options.trials)
        elif options.data is None:
            print(f"{part}: left out, needs --data")
        else:
            {"records": records, "time": timing}[part](options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
