"""Delta-learning: the cheaper level of theory that a model corrects."""
