"""One trial and its parts: data set, network, features, epochs, Ray trainable; and the baselines."""

import gc

# Objects made while torch, Ray and pandas are imported are never freed. Full collections would scan them seven times
# during the imports: one of the four seconds until a worker can begin. Younger generations are collected as usual.
FULL_COLLECTION = gc.get_threshold()[2]
gc.set_threshold(*gc.get_threshold()[:2], 1_000)
