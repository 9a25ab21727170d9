"""Which cases of a test run by default."""

from itertools import product
from types import SimpleNamespace

from tests.distribution import spread


class Case:
    """One case of a test, as pytest collects it."""

    def __init__(self, name, crossed=None, **params):
        self.nodeid = f"{name}[{params}]"
        self.callspec = SimpleNamespace(params=params)
        self.marker = None if crossed is None else SimpleNamespace(args=crossed)

    def get_closest_marker(self, name):
        return self.marker


def cases(name, crossed=None):
    return [
        Case(name, crossed, door=door, sign=sign, dialect=it) for door, sign, it in product((0, 1), range(9), "abc")
    ]


def test_a_test_without_the_marker_runs_whole():
    plain = cases("test_a")
    assert spread(plain) == set(plain)


def test_a_matrix_has_each_value_of_each_parameter_in_few_cases():
    kept = spread(cases("test_a", ()) + cases("test_b", ()))
    for name in ("test_a", "test_b"):
        all_shown = [case.callspec.params for case in kept if case.nodeid.startswith(name)]
        assert len(all_shown) <= 9 + 3
        assert {shown["sign"] for shown in all_shown} == set(range(9))
        assert {shown["door"] for shown in all_shown} == {0, 1}
        assert {shown["dialect"] for shown in all_shown} == set("abc")


def test_the_parameters_that_the_marker_names_are_crossed():
    kept = spread(cases("test_a", ("door", "sign")))
    pairs = {(case.callspec.params["door"], case.callspec.params["sign"]) for case in kept}
    assert pairs == set(product((0, 1), range(9)))
    assert len(kept) <= len(pairs) + 3


def test_the_choice_is_always_the_same():
    made = cases("test_a", ())
    assert spread(made) == spread(made[::-1])
