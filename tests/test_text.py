"""What is written: names in Markdown are shown and steer nothing, and secrets never leave."""

import json
import math

import pytest

from sweeper import text
from sweeper.text import code, plain, redacted, refuse_secret
from trainers.support.errors import UserError


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


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:pass@host/db", "postgresql://***@host/db"),
        ("see http://token@host:5000/x and http://host", "see http://***@host:5000/x and http://host"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_logins_of_addresses_are_blotted_out(text, clean):
    assert redacted(text) == clean


@pytest.mark.parametrize("name", ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "wandb_api_key"])
def test_secrets_of_the_environment_are_blotted_out(monkeypatch, name):
    monkeypatch.setenv(name, "canary-7")
    assert redacted("using canary-7 now") == "using *** now"


def test_a_short_or_an_innocent_value_stays(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "adam")
    monkeypatch.setenv("HOSTNAME", "machine-7")
    assert redacted("adam on machine-7") == "adam on machine-7"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://h:1/?token=abcdefgh", "http://h:1/?token=***"),
        ("https://h/x?a=1&X-Amz-Signature=ffff&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("http://h/?api_key=abc/api/2.0", "http://h/?api_key=***/api/2.0"),
        ("http://h/?page=2", "http://h/?page=2"),
    ],
)
def test_keys_in_the_query_of_an_address_are_taken_out(text: str, told: str):
    assert redacted(text) == told


def test_what_is_refused_is_not_shown_in_the_refusal():
    with pytest.raises(UserError, match=r"https://\*\*\*@host") as caught:
        refuse_secret("https://me:pw@host/w", "--set x")
    assert "pw" not in f"{caught.value} {caught.value.where} {caught.value.help}"
    refuse_secret("w/model.safetensors", "--set x")


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_null_however_deep(odd):
    given = {"a": [1.5, odd, (odd, "x")], "b": {"c": odd, "d": True, "e": None, "f": 3}}
    expected = {"a": [1.5, None, [None, "x"]], "b": {"c": None, "d": True, "e": None, "f": 3}}
    assert text.finite(given) == expected
    assert json.loads(json.dumps(text.finite(given), allow_nan=False)) == expected


@pytest.mark.parametrize(("value", "shown"), [(0.81234, "0.8123"), (None, "-"), (math.nan, "-"), (math.inf, "inf")])
def test_a_score_that_is_no_number_is_a_dash(value, shown):
    assert text.format_value(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.81234, "0.8123 ±0.0049"), (None, "-"), (math.nan, "-")])
def test_a_score_has_its_standard_error_beside_it(value, shown):
    assert text.format_value(value, 0.00491) == shown
