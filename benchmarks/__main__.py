"""Measures mlp_tape beside its peers: `python -m benchmarks MNIST.npz [--only epoch] [--rounds 5]`.

Everything is measured in turns in one call, on a machine that does nothing else. Results go to
`results.json`, `RESULTS.md` and two pictures in `docs/`; a section that is not measured keeps its figures.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import commands, epoch, growth, measure, report

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("data", type=Path, help="all of MNIST as an .npz")
    parser.add_argument("--only", nargs="+", choices=report.TITLES, default=list(report.TITLES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    data, file = given.data.resolve(), HERE / "results.json"

    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in given.only:
        section: dict[str, Any] = {"machine": measure.machine()}
        if name == "growth":
            grown = growth.measured(given.rounds)
            section["found"] = {what: measure.as_json(points) for what, points in grown.items()}
        else:
            how = {"epoch": epoch.measured, "whole": commands.whole, "without": commands.without_training}
            section["found"] = measure.as_json(how[name](data, given.rounds))
        if name == "whole":
            section["first"] = commands.first_of_all(data)
        results[name] = section
        file.write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(report.markdown(results))
    if "epoch" in results:
        report.bars(DOCS / "benchmark-epoch.png", results["epoch"]["found"])
    if "growth" in results:
        report.curves(DOCS / "benchmark-growth.png", results["growth"]["found"])
    print(report.markdown(results))


if __name__ == "__main__":
    main()
