"""What of a URL may be shown."""

import pytest

from seeknal.state.url import has_secret, redact

SECRET = "s3kret"


@pytest.mark.parametrize(
    "url",
    [
        f"libsql://{SECRET}@db.turso.io",
        f"libsql://db.turso.io?authToken={SECRET}",
        f"libsql:{SECRET}@db",
        f"https://{SECRET}@db.example",
        f"postgresql://me:{SECRET}@h/db",
        f"postgresql://me:{SECRET}/a?b#c@h/db",
        f"postgresql:/me:{SECRET}@h",
        f"mysql//me:{SECRET}@h",
        f"mysql://me:a@{SECRET}@h/db",
        f"postgresql://h/db?password={SECRET}&sslmode=require",
        f"https://h/db?jwt={SECRET}",
        f"https://h/db?api_key={SECRET}#x",
    ],
)
def test_a_secret_is_never_shown_however_the_url_is_written(url: str) -> None:
    assert SECRET not in redact(url)
    assert has_secret(url)


@pytest.mark.parametrize(
    "url", ["sqlite:///target/state.db", "postgresql://me@h/db?sslmode=require", "http://127.0.0.1:8080", "target/a@b"]
)
def test_what_holds_no_secret_stays_as_it_is(url: str) -> None:
    assert redact(url) == url
    assert not has_secret(url)


@pytest.mark.parametrize(
    ("url", "is_secret"),
    [
        ("${DATABASE_URL}", False),
        ("postgresql://me:${PASSWORD}@h/db", False),
        ("libsql://db.turso.io?authToken=${TOKEN}", False),
        (f"postgresql://me:{SECRET}@${{HOST}}/db", True),
        (f"postgresql://${{NAME}}:x{SECRET}@h/db", True),
    ],
)
def test_a_variable_is_no_secret_and_hides_none_beside_it(url: str, is_secret: bool) -> None:
    assert has_secret(url) is is_secret
