"""Names in Markdown are shown, and steer nothing."""

import pytest

from sweeper.text import code, plain


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("sleeve_length", "sleeve_length"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("![x](http://host)", r"!\[x\](http://host)"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("`*x*`", r"\`\*x\*\`"),
    ],
)
def test_what_would_steer_is_shown(name, written):
    assert plain(name) == written


@pytest.mark.parametrize(("text", "written"), [("a b", "`a b`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")])
def test_code_stays_code_whatever_is_in_it(text, written):
    assert code(text) == written
