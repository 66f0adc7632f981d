"""Every line of every registry names an object that exists."""

import pytest

from tf_lottery.core import registries
from tf_lottery.core.registry import Registry

TABLES = {k: v for k, v in vars(registries).items() if isinstance(v, Registry)}


@pytest.mark.parametrize("table", TABLES)
def test_every_member_loads_and_is_listed_once(table):
    members = list(TABLES[table].values())
    assert not any(isinstance(member, str) for member in members)
    assert len({id(member) for member in members}) == len(members)
