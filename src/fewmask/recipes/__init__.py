"""Recipes: each one file that reads as prose - which data, in which order, with which numbers."""
