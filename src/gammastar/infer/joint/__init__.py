"""One likelihood from the measured pairs to the limit: nothing is unfolded, no covariance is handed over."""
