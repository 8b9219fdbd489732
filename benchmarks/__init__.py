"""Figures behind our claims about speed, as ratios within one run. `make bench` runs them."""
