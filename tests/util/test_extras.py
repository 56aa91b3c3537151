from __future__ import annotations

import sys

import pytest

from spacy_slmre.util.extras import MissingExtraError, check_extra, require_extra


def test_a_missing_package_is_named_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = r"The engine needs the package ray\. Install it with: pip install 'spacy-slmre\[ray\]'"
    with pytest.raises(MissingExtraError, match=message) as imported, require_extra("ray", "The engine"):
        import ray  # noqa: F401
    with pytest.raises(MissingExtraError, match=message) as checked:
        check_extra("ray", "ray", "The engine")
    assert imported.value.name == checked.value.name == "ray"


def test_checking_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xml.dom.pulldom", raising=False)
    check_extra("any", "xml.dom.pulldom", "It")
    assert "xml.dom.pulldom" not in sys.modules
