"""Mathematics shared by architectures; each block that depends on positions has a written adjoint."""
