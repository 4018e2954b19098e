"""What commands do with finished runs, flows and likelihoods, one file per command."""
