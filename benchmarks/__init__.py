"""Figures for claims about speed, as ratios within one run. `make bench`."""
