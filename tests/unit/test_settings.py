"""Settings: read when asked, refused all at once, each problem with its name and cure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tidings.errors import ConfigError
from tidings.settings import ROOT, NotionAccess, Settings, asyncpg_url, block_of, database_url, load_settings

GOOD = {
    "DATABASE_URL": "postgresql://u:p@db:5432/tidings",
    "PREFECT_API_URL": "http://prefect:4200/api/",
    "NOTION_TOKEN": "ntn_x",
    "NOTION_TEMPLATES_DB_ID": "t",
    "NOTION_EMAIL_SEQUENCE_DB_ID": "s",
    "NOTION_CONTACTS_DB_ID": "c",
    "NOTION_EMAIL_ANALYTICS_DB_ID": "a",
    "RESEND_API_KEY": "re_x",
    "SENDER": "Clinic <hello@mail.clinic.ca>",
    "POSTAL_ADDRESS": "1 Example Street",
    "SECRET_KEY": "k" * 32,
}
BLOCK = "whsec_YmxvY2stYmxvY2stYmxvY2s="


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing of the machine's own settings, and a folder without .env."""
    for name in Settings.model_fields:
        for variable in (name.upper(), f"{name.upper()}_FILE"):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_good_settings__are_typed(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TESTING_MODE", "true")
    environ.setenv("TESTING_MINUTE_SECONDS", "4")
    environ.setenv("CORS_ORIGINS", "https://a.test, https://b.test/")

    settings = load_settings()

    assert settings.testing_minute == 4.0
    assert settings.origins == ["https://a.test", "https://b.test"]
    assert settings.prefect_api_url == "http://prefect:4200/api"
    assert settings.async_database_url == "postgresql+asyncpg://u:p@db:5432/tidings"
    assert settings.campaign_folders == [ROOT / "campaigns"]


def test_the_testing_minute__means_nothing_outside_of_testing(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TESTING_MINUTE_SECONDS", "4")

    assert load_settings().testing_minute is None


def test_everything_missing__is_told_at_once_with_name_and_cure(environ: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        environ.delenv(name)

    with pytest.raises(ConfigError) as told:
        load_settings()

    assert sorted(p.split()[0] for p in told.value.problems) == sorted(GOOD)
    assert (
        "  - NOTION_TEMPLATES_DB_ID is missing; set NOTION_TEMPLATES_DB_ID or the Prefect Secret block "
        "'notion-email-templates-db-id': Notion database (or data source) of the templates"
    ) in str(told.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "sqlite:///x.db", "must be a PostgreSQL address"),
        ("PREFECT_API_URL", "prefect:4200", "must begin with http:// or https://"),
        ("PUBLIC_URL", "t.clinic.ca", "must begin with http:// or https://"),
        ("SENDER", "Clinic", "must be an address such as"),
        ("SENDER", "Clinic <a@b.co>\nBcc: x@y.z", "must be an address such as"),
        ("SECRET_KEY", "short", "at least 16"),
        ("TESTING_MODE", "perhaps", "valid boolean"),
        ("LEASE_SECONDS", "0", "greater than 0"),
        ("MAX_BODY_BYTES", "many", "valid integer"),
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value__is_told_with_name_and_cure(
    environ: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    environ.setenv(name, value)

    with pytest.raises(ConfigError) as told:
        load_settings()

    (problem,) = told.value.problems
    assert problem.startswith(f"{name} ")
    assert said in problem
    assert f"set {name}" in problem


def test_a_problem__never_shows_a_secret(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("SECRET_KEY", "hunter2")
    environ.setenv("DATABASE_URL", "mysql://root:hunter3@db/x")

    with pytest.raises(ConfigError) as told:
        load_settings()

    assert "hunter" not in str(told.value)
    assert "hunter" not in repr(told.value)


def test_secrets__are_not_shown_by_repr(environ: pytest.MonkeyPatch) -> None:
    shown = repr(load_settings())

    assert all(secret not in shown for secret in ("ntn_x", "re_x", "k" * 32, "u:p@"))


def test_an_empty_variable__counts_as_not_set(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("REPLY_TO", "")
    environ.setenv("SENDER", "")

    with pytest.raises(ConfigError, match="SENDER is missing"):
        load_settings()


def test_dot_env__is_read_and_the_environment_wins(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REPLY_TO=desk@clinic.ca\nSENDER=other@clinic.ca\n")

    settings = load_settings()

    assert settings.reply_to == "desk@clinic.ca"
    assert settings.sender == GOOD["SENDER"]


def test_a_secret_from_a_file__is_read_without_its_last_newline(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("re_from_file\n")
    environ.delenv("RESEND_API_KEY")
    environ.setenv("RESEND_API_KEY_FILE", str(tmp_path / "key"))

    assert load_settings().resend_api_key.get_secret_value() == "re_from_file"


def test_a_variable__wins_over_its_file(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("re_from_file")
    environ.setenv("RESEND_API_KEY_FILE", str(tmp_path / "key"))

    assert load_settings().resend_api_key.get_secret_value() == "re_x"


def test_a_file_that_cannot_be_read__is_named(environ: pytest.MonkeyPatch) -> None:
    environ.delenv("SECRET_KEY")
    environ.setenv("SECRET_KEY_FILE", "/nowhere/key")

    with pytest.raises(ConfigError, match="SECRET_KEY_FILE names /nowhere/key, which cannot be read: No such file"):
        load_settings()


def test_everything_wrong__is_told_at_once_wherever_it_stands(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "utf-16").write_text("re_from_file", encoding="utf-16")
    environ.setenv("RESEND_API_KEY_FILE", str(tmp_path / "utf-16"))
    environ.setenv("SECRET_KEY_FILE", "/nowhere/key")
    environ.setenv("ADMIN_TOKEN_FILE", str(tmp_path))
    for name in ("RESEND_API_KEY", "SECRET_KEY", "NOTION_TOKEN"):
        environ.delenv(name)
    environ.setenv("SENDER", "Clinic")
    environ.setenv("TURNSTILE_SECRET", "t")
    environ.setenv("HCAPTCHA_SECRET", "h")

    with pytest.raises(ConfigError) as told:
        load_settings(lambda names: {})

    assert sorted(p.partition(";")[0] for p in told.value.problems) == [
        f"ADMIN_TOKEN_FILE names {tmp_path}, which cannot be read: Is a directory",
        "HCAPTCHA_SECRET and TURNSTILE_SECRET are both set",
        "NOTION_TOKEN is missing",
        f"RESEND_API_KEY_FILE names {tmp_path}/utf-16, which is not UTF-8 text",
        "SECRET_KEY_FILE names /nowhere/key, which cannot be read: No such file or directory",
        'SENDER must be an address such as "Clinic <hello@mail.clinic.ca>"',
    ]


def test_a_dot_env_that_is_no_text__is_told_with_what_else_is_wrong(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("SECRET_KEY=é", encoding="latin-1")
    environ.delenv("SECRET_KEY")
    environ.setenv("SENDER", "Clinic")

    with pytest.raises(ConfigError) as told:
        load_settings(lambda names: {})

    first, second = told.value.problems
    assert first.startswith(f"There is {tmp_path}/.env, which is not UTF-8 text; save it as")
    assert second.startswith("SENDER must be")


def test_a_secret_that_another_command_needs__is_not_in_the_way(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("ADMIN_TOKEN_FILE", "/nowhere/admin")

    assert NotionAccess.load().notion_token.get_secret_value() == "ntn_x"
    assert database_url() == "postgresql+asyncpg://u:p@db:5432/tidings"


def test_secret_blocks__are_asked_only_for_what_is_missing(environ: pytest.MonkeyPatch) -> None:
    environ.delenv("RESEND_API_KEY")
    environ.delenv("NOTION_CONTACTS_DB_ID")
    asked: list[str] = []

    def blocks(names: list[str]) -> Mapping[str, str]:
        asked.extend(names)
        return {"resend-api-key": "re_block", "notion-businessx-db-id": "from-block"}

    settings = load_settings(blocks)

    assert {"notion-businessx-db-id", "resend-api-key"} <= set(asked)
    assert "notion-token" not in asked
    assert settings.resend_api_key.get_secret_value() == "re_block"
    assert settings.notion_contacts_db_id == "from-block"


def test_secret_blocks__give_optional_settings_too(environ: pytest.MonkeyPatch) -> None:
    environ.delenv("TESTING_MODE", raising=False)
    environ.delenv("RESEND_WEBHOOK_SECRET", raising=False)

    settings = load_settings(lambda names: {"testing-mode": "true", "resend-webhook-secret": BLOCK})

    assert settings.testing_mode is True
    assert settings.resend_webhook_secrets == [BLOCK]


@pytest.mark.parametrize("name", ["RESEND_WEBHOOK_SECRET", "STANDARD_WEBHOOK_SECRETS"])
def test_a_secret_that_could_fit_no_signature__is_refused_at_the_start(environ: pytest.MonkeyPatch, name: str) -> None:
    environ.setenv(name, f"{BLOCK}, whsec_short")

    with pytest.raises(ConfigError, match=f"{name} must be whsec_"):
        load_settings()


def test_several_secrets_of_resends__are_separated_by_commas(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("RESEND_WEBHOOK_SECRET", f"{BLOCK}, {BLOCK}")

    assert load_settings().resend_webhook_secrets == [BLOCK, BLOCK]


def test_no_secret_of_resends__is_none(environ: pytest.MonkeyPatch) -> None:
    environ.delenv("RESEND_WEBHOOK_SECRET", raising=False)

    assert load_settings().resend_webhook_secrets == []


def test_secret_blocks__never_win_over_the_environment(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TESTING_MODE", "false")

    settings = load_settings(lambda names: {name: "true" for name in names if name == "testing-mode"})

    assert settings.testing_mode is False


def test_a_block_that_does_not_exist_either__is_told_as_missing(environ: pytest.MonkeyPatch) -> None:
    environ.delenv("NOTION_TOKEN")

    with pytest.raises(
        ConfigError, match="NOTION_TOKEN is missing; set NOTION_TOKEN or the Prefect Secret block 'notion-token'"
    ):
        load_settings(lambda names: {})


@pytest.mark.parametrize(
    ("field", "block"),
    [
        ("notion_token", "notion-token"),
        ("notion_templates_db_id", "notion-email-templates-db-id"),
        ("notion_email_sequence_db_id", "notion-email-sequence-db-id"),
        ("notion_contacts_db_id", "notion-businessx-db-id"),
        ("notion_customer_projects_db_id", "notion-customer-projects-db-id"),
        ("notion_email_analytics_db_id", "notion-email-analytics-db-id"),
        ("resend_api_key", "resend-api-key"),
        ("testing_mode", "testing-mode"),
    ],
)
def test_the_blocks__have_the_names_of_the_product(field: str, block: str) -> None:
    assert block_of(field) == block


def test_every_setting__has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_facts__leave_out_what_is_not_known(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("CALENDLY_LINK", "https://calendly.com/x")

    assert load_settings().facts == {"calendly_link": "https://calendly.com/x"}


def test_notion_init__needs_the_token_alone(environ: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        environ.delenv(name)
    with pytest.raises(ConfigError, match="NOTION_TOKEN is missing"):
        NotionAccess.load()

    environ.setenv("NOTION_TOKEN", "ntn_y")

    assert set(NotionAccess.load().ids.values()) == {None}


def test_migrations__need_the_database_alone(environ: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        if name != "DATABASE_URL":
            environ.delenv(name)

    assert database_url() == "postgresql+asyncpg://u:p@db:5432/tidings"


@pytest.mark.parametrize("given", ["postgres://h/d", "postgresql://h/d", "postgresql+asyncpg://h/d"])
def test_every_form_of_address__becomes_asyncpgs(given: str) -> None:
    assert asyncpg_url(given) == "postgresql+asyncpg://h/d"


def test_importing_the_server__reads_no_settings() -> None:
    bare = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}

    done = subprocess.run(
        [sys.executable, "-c", "import server; print(server.app.title)"],
        cwd=ROOT,
        env=bare,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, "Tidings\n"), done.stderr


@pytest.mark.parametrize("given", [" ", "\n", "Sample Street 1 (sample address of the sandbox)"])
def test_f18_without_a_postal_address__nothing_starts_with_real_keys(environ: pytest.MonkeyPatch, given: str) -> None:
    environ.setenv("POSTAL_ADDRESS", given)

    with pytest.raises(ConfigError) as told:
        load_settings()

    (problem,) = told.value.problems
    assert problem.startswith("POSTAL_ADDRESS ")


def test_the_sandboxs_address__is_fine_for_the_sandbox(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("POSTAL_ADDRESS", "Sample Street 1 (sample address of the sandbox)")
    environ.setenv("RESEND_API_URL", "http://127.0.0.1:9/resend")

    assert load_settings().postal_address.startswith("Sample Street 1")


@pytest.mark.parametrize(
    "given", ["*", "https://*.a.test", "a.test", "https://a.test, *", "null", "https://a.test/form", "https://u@a.test"]
)
def test_f20_websites__are_named_one_by_one(environ: pytest.MonkeyPatch, given: str) -> None:
    environ.setenv("CORS_ORIGINS", given)

    with pytest.raises(ConfigError, match=r"CORS_ORIGINS names .* without a path"):
        load_settings()


def test_two_captchas__are_one_too_many(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TURNSTILE_SECRET", "turnstile-secret")
    environ.setenv("HCAPTCHA_SECRET", "hcaptcha-secret")

    with pytest.raises(ConfigError, match="HCAPTCHA_SECRET and TURNSTILE_SECRET are both set") as refused:
        load_settings()

    assert "turnstile-secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_f20_an_empty_secret__counts_as_not_set_wherever_it_stands(
    environ: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "admin").write_text(content)
    environ.setenv("ADMIN_TOKEN_FILE", str(tmp_path / "admin"))

    settings = load_settings(lambda names: {"webhook-tokens": content, "admin-token": content})

    assert settings.admin_token is None
    assert settings.webhook_tokens is None


@pytest.mark.parametrize(
    ("url", "real"),
    [
        ("https://api.resend.com", True),
        ("https://API.Resend.com/", True),
        ("https://api.resend.com:443", True),
        ("http://127.0.0.1:8025/resend", False),
    ],
)
def test_f20_the_real_resend__is_known_however_it_is_written(environ: pytest.MonkeyPatch, url: str, real: bool) -> None:
    environ.setenv("RESEND_API_URL", url)

    assert load_settings().real is real
