"""Bundle -> Artifact: verified files to run elsewhere, and the ASE calculator."""
