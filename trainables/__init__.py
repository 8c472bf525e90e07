"""One trial, and what it needs: the data set, the network, the features, the epochs, the Ray face, the baselines."""

import gc

# What torch, Ray and pandas make when they are imported stays. Python would look through all of it again seven times
# meanwhile, a second of the four until a worker can begin; younger objects are looked through as ever.
FULL_COLLECTION = gc.get_threshold()[2]
gc.set_threshold(*gc.get_threshold()[:2], 1_000)
