"""python -m forgefield."""

from forgefield.app.launch import main

if __name__ == "__main__":
    main()
