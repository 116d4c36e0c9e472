"""python -m forgefield."""

from forgefield.app.cli import main

if __name__ == "__main__":
    main()
