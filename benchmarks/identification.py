"""Fits of measured records and times, beside SLICOT (ctrlsys) where it is installed; CVA on ARMA processes.

Run ``python benchmarks/identification.py --data FOLDER`` (with the folders slicot, daisy and nonlinear in it), or name
parts: ``records arma time``. The initial state of a free run is fitted to its first samples; fits are
100 (1 - |y - y_hat| / |y - mean|).
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from pathlib import Path

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
    """A, B, C, D of SLICOT's IB01AD, IB01BD and IB01CD through ctrlsys, on centred data."""
    import ctrlsys

    u, y = np.asfortranarray(u), np.asfortranarray(y)
    m, p = u.shape[1], y.shape[1]
    r = ctrlsys.ib01ad("M", "C", "M", "O", "N", "N", horizon, m, p, u, y, 0.0, -1.0)[1]
    a, c, b, d, *_ = ctrlsys.ib01bd("C", "A", "K", horizon, n, m, p, len(u), r, 0.0)
    copies = [np.asfortranarray(x.copy()) for x in (a, b, c, d)]
    _, b, d, *_ = ctrlsys.ib01cd("X", "C", "D", n, m, p, *copies, u, y, 0.0)
    return a, b, c, d


def records(data):
    """The four records of the table."""
    from solomonic.realization import InnovationModel

    furnace, arm = mat(data / "daisy" / "glassfurnace.mat"), mat(data / "daisy" / "robotArm.mat")
    tanks = np.genfromtxt(data / "nonlinear" / "cascaded_tanks.csv", delimiter=",", skip_header=1)
    k = 2 * len(furnace) // 3
    u, y = ib01(data)
    cases = [
        ("IB01", u, y, u, y, 4, 15, 15, "fit >= 89.0 %"),
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
    peer = importlib.util.find_spec("ctrlsys") is not None
    for name, u, y, u_test, y_test, n, horizon, first, asked in cases:
        rows = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for method in ("cva", "moesp", "n4sid"):
                rows[method] = identify(y, u, order=n, method=method, past=horizon, future=horizon)
            if peer:
                a, b, c, d = slicot(u - u.mean(0), y - y.mean(0), n, horizon or 15)
                p = len(c)
                rows["SLICOT"] = InnovationModel(
                    a, b, c, d, np.zeros((n, p)), np.eye(p), y_offset=y.mean(0), u_offset=u.mean(0)
                )
        for method, model in rows.items():
            run = model.simulate(u_test, x0=model.initial_state(y_test, u_test, samples=first))
            rmse = np.sqrt(np.mean((y_test - run) ** 2))
            print(
                f"{name:14} n={n} {method:7} fit {fit(y_test, run):8.2f} %  RMSE {rmse:8.4f}  "
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
    """One thousand samples, n = 4, horizon 15: CPU time, the smallest of 30 runs."""
    u, y = ib01(data)

    def best(call):
        times = []
        for _ in range(30):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return 1e3 * min(times)

    ours = best(lambda: identify(y, u, order=4, past=15, future=15))
    print(f"time: ours {ours:.1f} ms")
    if importlib.util.find_spec("ctrlsys") is not None:
        theirs = best(lambda: slicot(u, y, 4, 15))
        print(f"time: SLICOT {theirs:.2f} ms; asked at most 5 times that, got {ours / theirs:.1f}")
    for name in ("nfoursid", "sippy_unipi"):
        if importlib.util.find_spec(name) is None:
            print(f"time: {name} is not installed, left out")


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
