"""Families of checks, one file each: ENTRY builds a function from a survey to findings."""
