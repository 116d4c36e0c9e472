"""Tables of the settings of other programs, one each; the name is that of `forgefield translate --from NAME`."""
