"""Checks of what each joint must do, for the tests of other packages' implementations and ours."""
