"""Networks: from patches of stored numbers to probabilities, kept as arrays."""
