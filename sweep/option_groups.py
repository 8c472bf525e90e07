"""The options of ``python -m sweep.run``, in the groups and the words of its help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One option. name: the field of ``SweepConfig``. metavar: what stands for its value in the help; None = a switch.

    many: it may be given several times.
    """

    name: str
    metavar: str | None
    help: str
    many: bool = False


GROUPS: dict[str, tuple[Option, ...]] = {
    "images": (
        Option(
            "data",
            "PATH",
            "a folder train|val|test/CLASS/*, a folder CLASS/* (split 70/15/15 here), or a .csv manifest; "
            "default: demo, phantoms drawn by code",
        ),
        Option(
            "label_column",
            "NAME",
            "manifest: the column of the class (or of classes, as a|b); repeat it for columns of 0 and 1",
            many=True,
        ),
        Option("path_column", "NAME", "manifest: the column of the image files; default: path"),
        Option("group_column", "NAME", "manifest: the patient, who never stands in two splits; default: none"),
        Option("split_column", "NAME", "manifest: train, val or test; default: split, if there is such a column"),
        Option("subgroup_column", "NAME", "manifest: a column to report by, such as sex; may be repeated", many=True),
        Option("source_column", "NAME", "manifest: where an image comes from, compared with its class"),
        Option("task", "TASK", "single_label, multi_label or auto (from the labels); default: auto"),
        Option("image_size", "PX", "side of the square that the network sees, pixels; default: 224, demo 64"),
        Option("fit", "HOW", "how an image becomes square: squash, crop or pad; default: squash"),
        Option("allow_leakage", None, "go on where a patient or an image is in two splits; the report is marked"),
        Option("skip_unreadable", None, "go on without the files that cannot be read; the report is marked"),
    ),
    "what is tried": (
        Option(
            "space",
            "NAME",
            "a search space: partial_unfreeze, head_only, full_finetune, imbalance, a study (studies.bscs17028, "
            "studies.msds18022, studies.msds19058, studies.msds19005, studies.msds19042), or the path of a Python "
            "file of one's own; default: partial_unfreeze",
        ),
        Option("rows", "IDS", "of a study only these rows, such as W2,W4; default: all that fit the data", many=True),
        Option(
            "backbones",
            "NAMES",
            "exactly these networks, with commas between; default: all whose weights are found",
            many=True,
        ),
        Option(
            "weights",
            "FROM",
            "what a network starts from: imagenet, random, or a folder of weight files; default: imagenet, demo random",
        ),
        Option("set", "NAME=VALUE", "fix a hyperparameter in every trial, such as lr=1e-3; may be repeated", many=True),
    ),
    "how much": (
        Option("trials", "N", "configurations to try; default: 64, demo 16 (a study: its list)"),
        Option("epochs", "N", "the most epochs of a trial; default: 20, demo 6 (a study: its own)"),
        Option("patience", "N", "end a trial after N epochs without a better metric; default: none"),
        Option("time_budget", "TIME", "stop the sweep after 90m, 2h, 1d (a number: seconds); default: none"),
        Option("trial_time_limit", "TIME", "a trial that takes longer fails; same units; default: none"),
    ),
    "search": (
        Option(
            "metric", "NAME", "epochs.parquet's column to select by, at a trial's best epoch; default: val_f1_macro"
        ),
        Option("sampler", "NAME", "tpe, gp, qmc, random, or grid (every one of a finite space); default: tpe"),
        Option("scheduler", "NAME", "what stops bad trials early: asha, median or none; default: asha (a study: none)"),
        Option("grace_period", "N", "epochs that every trial may run; default: a fifth of the epochs, at least 3"),
        Option("reduction_factor", "X", "asha lets one trial in X go on at each rung, 2 or more; default: 3"),
        Option("seed", "N", "of the splits, the search and every trial, 0 or more; default: 0"),
        Option("deterministic", None, "the same seed gives the same sweep, also with several trials at once; slower"),
        Option("precision", "NAME", "fp32, or bf16 (faster where the hardware has it); default: fp32"),
    ),
    "evidence": (
        Option("finalists", "N", "best configurations trained again with fresh seeds, 0: none; default: 3, demo 2"),
        Option("repeats", "N", "how often each of them is trained again; default: 3, demo 2"),
        Option("folds", "K", "train them by K-fold cross-validation on train + val instead; default: the run's split"),
        Option(
            "compare",
            "NAMES",
            "repeat also the best of each value of these hyperparameters, such as backbone,unfreeze_depth, of which at "
            "least three trials have ended; the cost is told first",
            many=True,
        ),
        Option("positive_class", "NAME", "the class whose sensitivity and specificity the report states first"),
    ),
    "machines": (
        Option("cpus_per_trial", "N", "CPUs, and so torch threads, of a trial; default: 1"),
        Option("gpus_per_trial", "X", "1, or a part such as 0.5 to share one; default: 1 if there is a GPU, else 0"),
        Option("concurrency", "N", "trials at once; default: as many as CPUs and GPUs allow"),
        Option("address", "ADDRESS", "a running Ray cluster, such as auto or HOST:6379; default: local, this machine"),
    ),
    "place": (
        Option("storage", "FOLDER", "holds the run folders; on a cluster one that every node sees; default: runs"),
        Option("name", "NAME", "of the new run folder; default: the space and the time"),
        Option("resume", "NAME", "go on with a run; --trials, --time-budget and the machines may be given anew"),
        Option("dry_run", None, "show the configuration, five trials, and the time and disk it would take"),
        Option("config", "FILE", "a YAML file of these options (lines such as `epochs: 20`); the command line wins"),
    ),
}

EXAMPLES = """\
examples:
  python -m sweep.run                                      the demo set: a first report in minutes
  python -m sweep.run --data xrays/ --time-budget 8h       a folder of images, over night
  python -m sweep.run --data xrays.csv --label-column finding --group-column patient
  python -m sweep.run --data xrays/ --backbones resnet18,vgg16 --set optimizer=adamw --dry-run
  python -m sweep.run --resume NAME --trials 200           go on with a run, and further

exit codes:
  0 done   1 every trial failed   2 bad input   130 interrupted; what is done is kept, see --resume"""
