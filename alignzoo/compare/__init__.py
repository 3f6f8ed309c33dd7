"""Recipes side by side: a plan of runs that share what they can, measured alike, and a table that can be believed."""
