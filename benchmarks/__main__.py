"""Compares mlp_tape with other frameworks: `python -m benchmarks MNIST.npz [--only epoch] [--rounds 5]`.

All variants are measured alternately in one call, on an otherwise idle machine. Results are written to
`results.json`, `RESULTS.md` and two plots in `docs/`; sections that are not measured keep their figures.
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
    parser.add_argument("data", type=Path, help="path of the full MNIST data set as an .npz file")
    parser.add_argument("--only", nargs="+", choices=report.TITLES, default=list(report.TITLES))
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    data, file = given.data.resolve(), HERE / "results.json"

    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in given.only:
        section: dict[str, Any] = {"machine": measure.machine()}
        if name == "growth":
            scaling = growth.measured(given.rounds)
            section["found"] = {what: measure.as_json(points) for what, points in scaling.items()}
        else:
            measures = {
                "epoch": epoch.measured,
                "whole": commands.whole,
                "without": commands.without_training,
            }
            section["found"] = measure.as_json(measures[name](data, given.rounds))
        if name == "whole":
            section["first"] = commands.first_run(data)
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
