"""Recipes in TOML: data, samples, model and objective, from files to a trained model."""
