"""Suites of guests: the guests of a suite, their settings, and their expected results."""
