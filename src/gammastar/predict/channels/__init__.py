"""Production channels: measured virtual photons, theory, tables of other tools."""
