"""Passwords are found and left out, whatever they look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.params_yaml import load_params
from compress.redaction import holds_password, without_password

words = st.text(st.characters(categories=["L", "N"]), min_size=1)
secrets = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda s: "@" not in s
)


@given(words, secrets, words, st.integers(1, 65535))
def test_passwords_are_never_shown(user, password, host, port):
    uri = f"postgresql://{user}:{password}@{host}:{port}/db"
    assert without_password(uri) == f"postgresql://{user}:***@{host}:{port}/db"
    assert holds_password(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://a.b:5000", "http://a.b:5000"),
        ("https://me@a.b:5000/x", "https://me@a.b:5000/x"),
        ("sqlite:////tmp/a@b/m.db", "sqlite:////tmp/a@b/m.db"),
        ("databricks", "databricks"),
        ("postgresql://h/db?user=me&password=abc", "postgresql://h/db?user=me&password=***"),
    ],
)
def test_what_is_no_password_stays(uri, shown):
    assert without_password(uri) == shown
    assert holds_password(uri) == (uri != shown)


def test_params_that_hold_a_password_are_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("tracking: {uri: 'http://me:hidden@server:5000'}\n")
    with pytest.raises(InputError) as caught:
        load_params(path)
    message = str(caught.value)
    assert "tracking.uri" in message and "MLFLOW_TRACKING_PASSWORD" in message
    assert "hidden" not in message
