"""Many trials: the command line, Ray Tune and Optuna, resume, the finalists, the run folder."""

import os

# Ray reads these when it is imported, which every file of this package that does comes after. Its tables and its own
# loggers are for people who watch Ray; ours are in the run folder, and the snapshot that they would slow down is not
# what a sweep is resumed from.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="600",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
