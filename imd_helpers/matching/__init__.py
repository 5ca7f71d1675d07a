"""Which crystals are the same, which are new, and of which kind is the novelty."""
