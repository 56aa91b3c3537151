"""Relation extraction inside other frameworks: one thin module for each, with an extra of its own."""
