"""Does bf16 cost score? The same trials in fp32 and in bf16, seed by seed, and the interval of their mean difference.

    python -m benchmarks.precision --data FOLDER --weights FOLDER|random [--device cuda|cpu] [--seeds 40]
                                   [--processes 1] [--seconds 7200] [--results FILE] [--quick]

FOLDER holds train, val and test, each with one folder per class. Head and last block are trained at 224 px with cached
features, everything at 96 px. Prints one line of JSON per pair of trials and, at the end, for each case the mean
difference (bf16 - fp32) of the best epoch's macro F1 with its 95 % interval (Student's t over the seeds). Pairs in the
results file are not run again. No pair is started after ``--seconds``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.gpu_session import QUICK_FILES, DecodedImages, Row, Session, decode_folder, machine, print_row
from search_spaces.params import TrialParams
from trainables.weights import find_weights

CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "squeezenet1_1, head": (224, 10, {"backbone": "squeezenet1_1", "unfreeze_depth": 0, "lr": 0.01}),
    "mobilenet_v2, head": (224, 10, {"backbone": "mobilenet_v2", "unfreeze_depth": 0, "lr": 0.01}),
    "squeezenet1_1, last block": (224, 10, {"backbone": "squeezenet1_1", "unfreeze_depth": 1, "lr": 0.002}),
    "resnet18, last block": (224, 10, {"backbone": "resnet18", "unfreeze_depth": 1, "lr": 0.01}),
    "mobilenet_v2, last block": (224, 10, {"backbone": "mobilenet_v2", "unfreeze_depth": 1, "lr": 0.01}),
    "squeezenet1_1, everything": (96, 8, {"backbone": "squeezenet1_1", "unfreeze_depth": 4, "lr": 0.002}),
    "resnet18, everything": (96, 8, {"backbone": "resnet18", "unfreeze_depth": 4, "lr": 0.01}),
}
"""Side of the images in pixels, epochs, and hyperparameters. Cases without weights are left out."""
MARGIN = 0.01
"""An interval of the difference in macro F1 within +-MARGIN shows that bf16 costs nothing that matters."""


def main() -> None:
    began_s = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of images: split/class/file")
    parser.add_argument("--weights", required=True, help="a folder of weight files, or random")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1, help="pairs at once")
    parser.add_argument("--seconds", type=float, default=7200.0, help="no pair is begun later")
    parser.add_argument("--results", type=Path, help="a file of JSON lines to go on with")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    arguments = parser.parse_args()
    print_row(machine(torch.device(arguments.device)))
    pairs = read(arguments.results)
    missing = find_weights(arguments.weights, [str(params["backbone"]) for _, _, params in CASES.values()])[1]
    names = [name for name, (_, _, params) in CASES.items() if params["backbone"] not in missing]
    todo = [(name, seed) for seed in range(arguments.seeds) for name in names]
    todo = [one for one in todo if one not in {(row["case"], row["seed"]) for row in pairs}]
    with tempfile.TemporaryDirectory() as folder:
        context = get_context("spawn")
        with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
            prepared = Path(folder)
            for size in {32} if arguments.quick else {size for size, _, _ in CASES.values()}:
                images = decode_folder(
                    arguments.data, prepared / f"{size}.npy", size, QUICK_FILES if arguments.quick else None
                )
                (prepared / f"{size}.json").write_text(json.dumps(vars(images) | {"pixels": str(images.pixels)}))
            common = (prepared, arguments.device, arguments.weights, arguments.quick, began_s, arguments.seconds)
            for answer in as_completed([pool.submit(run_pair, *one, *common) for one in todo]):
                if (row := answer.result()) is not None:
                    pairs.append(row)
                    print_row(row)
                    if arguments.results is not None:
                        with arguments.results.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(row) + "\n")
    for name in names:
        print_row(conclusion(name, [row for row in pairs if row["case"] == name]))


def read(results: Path | None) -> list[Row]:
    """The pairs of an earlier call."""
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def run_pair(
    name: str, seed: int, prepared: Path, device: str, weights: str, quick: bool, began_s: float, seconds: float
) -> Row | None:
    """Both trainings of one seed, one after the other; None if the time is over."""
    if time.monotonic() - began_s > seconds:
        return None
    size, epochs, params = CASES[name]
    size, epochs = (32, 2) if quick else (size, epochs)
    facts = json.loads((prepared / f"{size}.json").read_text(encoding="utf-8"))
    images = DecodedImages(**facts | {"pixels": Path(facts["pixels"]), "shape": tuple(facts["shape"])})
    session = Session(
        Path(tempfile.mkdtemp(dir=prepared)), images, torch.device(device), weights, True, began_s, seconds
    )
    run_dir = session.whole()
    row: Row = {"case": name, "seed": seed}
    for precision in ("fp32", "bf16") if seed % 2 else ("bf16", "fp32"):
        start_s = time.monotonic()
        trial = session.trial(
            run_dir,
            TrialParams(**{"batch_size": 4 if quick else 32, "augment": "flip"} | params),
            precision=precision,
            epochs=epochs,
            cache=prepared / "features",
            seed=seed,
        )
        record: dict[str, Any] = {}
        while not record.get("done"):
            record = trial.run_epoch()
        trial.close()
        row[precision] = round(record["best_val_f1_macro"], 5)
        row[f"{precision}_s"] = round(time.monotonic() - start_s, 2)
    return row


def conclusion(name: str, pairs: list[Row]) -> Row:
    """The mean difference of the pairs, and whether its interval lies within ``MARGIN``."""
    differences = np.array([row["bf16"] - row["fp32"] for row in pairs])
    found: Row = {"case": name, "pairs": len(pairs)}
    if len(pairs) < 2:
        return found
    half = float(stats.t.ppf(0.975, len(pairs) - 1) * differences.std(ddof=1) / len(pairs) ** 0.5)
    mean = float(differences.mean())
    found |= {"mean_difference": round(mean, 4), "interval": [round(mean - half, 4), round(mean + half, 4)]}
    return found | {"within_margin": abs(mean) + half <= MARGIN}


if __name__ == "__main__":
    main()
