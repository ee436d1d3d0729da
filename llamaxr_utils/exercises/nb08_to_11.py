"""Exercises of the second course, notebooks 08 to 11: which ruler, which
list, which report follows its image."""

from ..course.exercises import Exercise

EXERCISES: dict[str, Exercise] = {}
