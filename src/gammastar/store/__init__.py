"""Files: atomic writes and the manifest, spectra and histograms, events.

The modules are imported one by one, so that looking at a manifest does not load uproot.
"""
