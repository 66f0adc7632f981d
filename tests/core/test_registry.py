import pytest

from tf_lottery.core import registry

TABLE = {"magnitude": 1, "random": 2, "snip": 3}


@pytest.mark.parametrize("name", TABLE)
def test_a_known_name_gives_its_entry(name):
    assert registry.get(TABLE, name, "criterion") == TABLE[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "magnitud",
            "Unknown criterion 'magnitud'. Did you mean 'magnitude'? "
            "Known: magnitude, random, snip.",
        ),
        ("zzz", "Unknown criterion 'zzz'. Known: magnitude, random, snip."),
        ("", "Unknown criterion ''. Known: magnitude, random, snip."),
        (None, "Unknown criterion None. Known: magnitude, random, snip."),
    ],
)
def test_an_unknown_name_lists_the_known_and_suggests_only_a_near_one(
    name, message
):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole text
        registry.get(TABLE, name, "criterion")
    assert str(error.value) == message


def test_the_nearest_of_several_is_suggested():
    known = ["conv/kernel", "dense/kernel", "dense_1/kernel"]
    assert registry.nearest("dense_2/kernel", known).endswith(
        "'dense_1/kernel'?"
    )
    assert registry.nearest("den/kernel", iter(known)).endswith(
        "'dense/kernel'?"
    )
    assert registry.nearest("x", known) == ""
    assert registry.nearest("x", []) == ""


def test_a_registry_imports_a_member_when_it_is_used():
    table = registry.Registry(
        "xml", {"root": "no_such_module:x", "parse": "sax:parse"}
    )
    assert list(table) == ["root", "parse"]
    assert "parse" in table
    assert len(table) == 2
    assert table["parse"].__module__ == "xml.sax"
    with pytest.raises(ModuleNotFoundError, match="xml.no_such_module"):
        table["root"]
    with pytest.raises(KeyError):
        table["none"]


def test_a_registry_takes_objects_and_gives_them_up():
    table = registry.Registry("xml", {})
    table["mine"] = print
    assert table["mine"] is print
    del table["mine"]
    assert not table


def test_lazy_attributes_are_names_of_modules_or_modules():
    load = registry.lazy_attributes("xml", {"parse": "sax", "dom": ""})
    assert load("parse").__module__ == "xml.sax"
    assert load("dom").__name__ == "xml.dom"
    with pytest.raises(AttributeError, match="'xml' has no attribute 'other'"):
        load("other")
