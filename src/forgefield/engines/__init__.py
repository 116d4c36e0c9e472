"""One face for programs that live in an interpreter of their own."""
