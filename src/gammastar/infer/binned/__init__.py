"""HistFactory workspaces with every kind of nuisance: expectations, fits of many data sets at once, toys."""
