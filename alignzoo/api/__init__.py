"""Calls from Python, with models and data in memory: run, compare, score, generate.

Each is the command of its name as a function. What is in memory is written to files named by their content, so that a
run from Python is a run like any other.
"""
