"""Many trials: the command line, Ray Tune and Optuna, resume, the finalists, the run folder."""

import os

# Ray reads these at import, so they are set before any file of this package imports it. Its tables and loggers are off,
# since a sweep has its own in the run folder. Its snapshot is written rarely: a sweep is not resumed from it.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="600",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
