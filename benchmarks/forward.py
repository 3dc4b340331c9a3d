"""Peak memory and time of a whole forward pass of the zoo's models against the length of the text.

Each length runs in a process of its own, so that the peak is that of the length. Memory that grows by the
same amount with every doubling of the growth in tokens is linear in the length; attention over all the past
is left out beyond 8192 tokens, where its time grows with the square.
"""

import subprocess
import sys
import time

import torch
from _memory import peak_resident

from solomonic import models

LENGTHS = (4096, 8192, 16384, 32768)


def one(name: str, length: int) -> None:
    """Measure one forward pass and print peak bytes over the loaded model, and seconds."""
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    model = models.load(name)
    ids = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(ids[:, :256])
        before = peak_resident()
        start = time.perf_counter()
        model(ids)
        seconds = time.perf_counter() - start
    print(peak_resident() - before, seconds)


def main() -> None:
    """Print the table: megabytes over the loaded model, and seconds, for each length."""
    print("peak memory of a forward pass over the loaded model, MB (and seconds), two threads")
    print(f"{'tokens':<12}" + "".join(f"{length:>18,}" for length in LENGTHS))
    for name in models.zoo("bytes"):
        cells, peaks = [], []
        for length in LENGTHS:
            if name == "transformer" and length > 8192:
                cells.append(f"{'-':>18}")
                continue
            out = subprocess.run(
                [sys.executable, __file__, name, str(length)], capture_output=True, text=True, check=True
            )
            peak, seconds = (float(word) for word in out.stdout.split())
            peaks.append(peak / 1e6)
            cells.append(f"{peak / 1e6:>9.0f} ({seconds:>5.2f} s)")
        print(f"{name:<12}" + "".join(cells))
        if len(peaks) == len(LENGTHS):
            print(f"{'':<12}growth from 16,384 to 32,768 over that from 8,192 to 16,384: "
                  f"{(peaks[3] - peaks[2]) / (peaks[2] - peaks[1]):.2f} (linear: 2)")  # fmt: skip


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2])) if len(sys.argv) == 3 else main()
