"""docs/howto/testing.md: the shop's own tests, which call no model and start no process."""

from tests.foreign.shop.site import Shop


def test_the_shops_own_tests_pass(shop: Shop):
    said = shop.manage("test", "shop", "--verbosity", "2")
    assert "OK" in said
    assert "Ran 5 tests" in said
