"""Numbers from predictions: scores under resampling, intervals, comparisons, who stands where."""
