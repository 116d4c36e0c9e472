"""Delta-learning in a run: where base labels come from, and what is done with them."""
