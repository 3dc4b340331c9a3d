"""What stored tokens do to a B'MOJO-F model that was trained without them: bits a byte of the zoo's ``bmojo-f``.

Run ``python benchmarks/eidetic_path.py``. Differences to the model as it is are paired over windows of text, with
their standard errors.
"""

from __future__ import annotations

import torch

from solomonic.models import bits_per_token, load, stdlib_corpus, with_eidetic
from solomonic.models.evaluation import windows

BUDGETS = (0, 1, 4, 16, 64)


def main() -> None:
    """Print the table."""
    torch.set_flush_denormal(True)
    model, corpus = load("bmojo-f"), stdlib_corpus()
    rows = windows(corpus.validation_plain, 512, most=24)
    plain = bits_per_token(model, rows).mean(-1)
    print(f"bmojo-f as it is: {plain.mean():.4f} bits a byte over {len(rows)} windows of 512")
    print(f"{'stored':>8}{'innovation':>12}{'more':>9}{'+-':>8}{'random':>10}{'more':>9}{'+-':>8}")
    for tokens in BUDGETS:
        cells = [f"{tokens:8}"]
        for norm in ("l2", "random"):
            bits = bits_per_token(with_eidetic(model, tokens, norm=norm), rows).mean(-1)
            more = bits - plain
            cells.append(f"{bits.mean():12.4f}{more.mean():9.4f}{more.std() / len(rows) ** 0.5:8.4f}")
        print("".join(cells))


if __name__ == "__main__":
    main()
