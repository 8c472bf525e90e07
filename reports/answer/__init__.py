"""The page's first section: what won, what its score is worth, how to use it, and what was run."""
