"""The steps that tasks are made of."""
