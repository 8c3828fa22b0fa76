"""Samples for training: patches of images and labels, split by space, stored and loaded."""
