"""Suites of guests: which guests, how they run, how they should end."""
