"""Facts from the records of trials: tables, importance, effects, what was published."""
