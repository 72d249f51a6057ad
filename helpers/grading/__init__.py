"""Grading: student code runs in a sandbox, and what counts is decided outside of it."""
