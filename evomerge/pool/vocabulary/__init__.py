"""Tokens: whether the models of a pool share them, and how rows are put in one order."""
