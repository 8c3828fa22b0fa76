"""A map beside a reference: counts of every pair of classes, measures, where they disagree."""
