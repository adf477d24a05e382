"""Samples to verdicts to conditions. Pure: no clock, no network; `now` is an argument and what must be remembered is returned."""
