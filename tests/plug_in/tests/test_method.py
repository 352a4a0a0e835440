"""The tests that the package has of its own."""

from evomerge_example.method import RestoredMeanConfig

from evomerge.testing.methods import check_method


def test_it_does_what_a_method_must():
    check_method(RestoredMeanConfig())
