"""What do models of the recall study say where they are wrong: another value of the row, or anything?

Run ``solomonic recall --out runs/recall`` first, then ``python benchmarks/recall_errors.py runs/recall``. Questions at
the farthest distances of the study's test rows, all seeds of a model together. A model that knows which values occurred
in the row, and not which key they stood behind, is right in one of as many as there are pairs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from solomonic.models import load
from solomonic.models.recall_study import RecallStudy, recall_results
from solomonic.models.tasks import IGNORED


@torch.no_grad()
def main(folder: Path) -> None:
    """Print a row for each model: the shares of right answers, of other values of the row, and of anything else."""
    if not (folder / "study.json").is_file():
        print(f"{folder} holds no study; `solomonic recall --out {folder}` makes one")
        return
    fixed = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    study = RecallStudy(**fixed)
    _, low, high = study.lags[-1]
    print(f"{'pairs':>5}  {'model':<16}{'decay':<9}{'seeds':>5}{'right':>9}{'another value':>15}{'anything':>10}"
          f"{'1/pairs':>9}")  # fmt: skip
    groups: dict[tuple, list[int]] = {}
    for result in recall_results(folder):
        groups.setdefault((result["pairs"], result["model"], result["decay"]), []).append(result["seed"])
    for (pairs, name, decay), seeds in sorted(groups.items()):
        right = other = asked_for = 0
        for seed in seeds:
            model = load(folder / f"{name}-{pairs}-{decay}-{seed}")
            rows = study.task(study.rows, pairs, [seed, 1 << 40])
            said = torch.cat([model(ids).logits.argmax(-1) for ids in rows.ids.split(64)])
            asked = (rows.targets != IGNORED) & (rows.lags >= low) & (rows.lags <= high)
            values = torch.where(rows.targets == IGNORED, -1, rows.targets)  # each pair is asked for
            among = (said.unsqueeze(-1) == values.unsqueeze(1)).any(-1)
            hit = said == rows.targets
            right += int((hit & asked).sum())
            other += int((among & ~hit & asked).sum())
            asked_for += int(asked.sum())
        shares = (right / asked_for, other / asked_for, 1 - (right + other) / asked_for)
        print(f"{pairs:>5}  {name:<16}{decay:<9}{len(seeds):>5}{shares[0]:>9.2f}{shares[1]:>15.2f}{shares[2]:>10.2f}"
              f"{1 / pairs:>9.2f}")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/recall"))
