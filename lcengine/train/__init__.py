"""Training of networks: one loop for every objective."""
