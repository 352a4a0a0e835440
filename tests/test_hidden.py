"""Messages and logs have no passwords and tokens."""

from __future__ import annotations

import logging
import sys

import pytest

from evomerge.errors import CandidateError, InputError
from evomerge.hidden import HidingFormatter, hide
from evomerge.record import RecordConfig
from evomerge.record.config import refuse_secrets
from evomerge.workers.faults import fault_of

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("at postgresql://me:pass@host:5432/db.", "at postgresql://***@host:5432/db."),
        ("postgresql+psycopg2://me:p%40ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://oauth2token@host/path", "https://***@host/path"),
        ("http://me:p@ss@host, http://host:80/a@b", "http://***@host, http://host:80/a@b"),
        ("http://a-token@host and http://me:it's@host", "http://***@host and http://***@host"),
        (
            "postgresql://h/d?sslmode=on&password=a&x=1",
            "postgresql://h/d?sslmode=on&password=***&x=1",
        ),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("org/model@main and a@b.c", "org/model@main and a@b.c"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer ***"),
        ("hf_model and hf_", "hf_model and hf_"),
    ],
)
def test_addresses_and_tokens_are_hidden(text, hidden):
    assert hide(text) == hidden


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("HF_TOKEN", True),
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("PGPASSWORD", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("PREFECT_API_KEY", True),
        ("my_token", True),
        ("OPENAI_APIKEY", True),
        ("TOKEN1", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("RAY_AUTH_TOKEN_PATH", False),
        ("KEYBOARD", False),
    ],
)
def test_secret_variables_are_known_by_their_names(name, is_secret, monkeypatch):
    monkeypatch.setenv(name, "planted-value")
    assert (hide("it is planted-value") == "it is ***") == is_secret


def test_short_values_are_words(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "true")
    monkeypatch.setenv("DB_PASSWORD", "postgres")
    assert hide("postgresql://host is true") == "postgresql://host is true"


def test_the_longer_of_two_goes_first(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "planted-value")
    monkeypatch.setenv("B_TOKEN", "planted-value-and-more")
    assert hide("planted-value-and-more") == "***"


def test_errors_faults_and_logs_have_none(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted-value")
    assert str(InputError("x" * 195 + "planted-value" + "x" * 300)).count("planted") == 0
    assert str(CandidateError("planted-value")) == "***"
    try:
        raise RuntimeError("https://me:planted-value@host") from ValueError(TOKEN)
    except RuntimeError as error:
        fault = fault_of(error)
        record = logging.LogRecord("x", 30, "f", 1, "%s", ("planted-value",), sys.exc_info())
    text = HidingFormatter("%(message)s").format(record)
    for said in (fault.reason, fault.trace, text):
        assert "planted" not in said and TOKEN not in said and "***" in said


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        ("http://me:secret@host:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("https://secret@host", "MLFLOW_TRACKING_TOKEN"),
        ("https://host?token=secret", "MLFLOW_TRACKING_TOKEN"),
        ("postgresql://me:secret@host/db", "PGPASSWORD"),
        ("postgresql://host/db?password=secret", "PGPASSWORD"),
    ],
)
def test_an_address_with_a_password_is_refused_for_new_runs(address, variable):
    with pytest.raises(InputError, match=variable) as info:
        refuse_secrets(RecordConfig(tracking_uri=address), "")
    assert "secret" not in str(info.value)


@pytest.mark.parametrize("address", [None, "http://host", "postgresql://me@host/db?sslmode=on"])
def test_others_are_not(address):
    refuse_secrets(RecordConfig(tracking_uri=address), "")
