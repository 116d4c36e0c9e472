"""Physics terms that are added to a learned energy."""
