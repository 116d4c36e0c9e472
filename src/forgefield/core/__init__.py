"""The nouns every room talks about. No torch here."""
