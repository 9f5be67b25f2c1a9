"""Who may sign in: passwords kept as hashes, people revoked and let back in."""

from pathlib import Path

import pytest
from sqlalchemy import select

from fraud_core.access.users import _USERS, Users
from fraud_core.errors import SettingsError
from fraud_core.settings import Settings
from fraud_core.storage.database import open_database


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(open_database(Settings(_env_file=None, home=tmp_path)))


def test_a_password_lets_its_user_in_and_nobody_else(users: Users) -> None:
    anna, password = users.create("anna", "analyst")
    users.create("ben", "lead")
    assert users.verified("anna", password) == anna
    assert users.verified("ben", password) is None
    assert users.verified("anna", password + "x") is None
    assert users.verified("nobody", password) is None
    assert [(user.name, user.role) for user in users.list()] == [("anna", "analyst"), ("ben", "lead")]


def test_a_password_is_stored_as_an_argon2id_hash_and_shown_by_nothing(users: Users, tmp_path: Path) -> None:
    user, password = users.create("anna", "analyst")
    assert user.password.startswith("$argon2id$")
    assert user.password not in repr(user)
    with open_database(Settings(_env_file=None, home=tmp_path)).connect() as connection:
        assert password not in str(connection.execute(select(_USERS)).all())
    assert len(set(password)) > 5
    assert users.create("ben", "analyst")[1] != password


def test_whoever_is_revoked_stays_on_record_and_comes_back_with_another_password_alone(users: Users) -> None:
    _, old = users.create("anna", "analyst")
    assert users.revoke("anna").revoked is not None
    assert users.verified("anna", old) is None
    with pytest.raises(SettingsError, match="already"):
        users.create("anna", "lead")
    user, new = users.reset("anna")
    assert user.revoked is None
    assert users.verified("anna", old) is None
    assert users.verified("anna", new) == user


def test_roles_change_and_cards_are_noted_once(users: Users) -> None:
    users.create("anna", "analyst")
    assert users.change_role("anna", "lead").role == "lead"
    users.add_card("anna", "c0ffee")
    assert users.add_card("anna", "c0ffee").cards == {"c0ffee"}
    assert users.list()[0].cards == {"c0ffee"}


@pytest.mark.parametrize(("name", "role"), [("Anna", "analyst"), ("", "analyst"), ("a b", "lead"), ("anna", "admin")])
def test_what_is_no_name_or_role_is_refused(users: Users, name: str, role: str) -> None:
    with pytest.raises(SettingsError):
        users.create(name, role)
    assert users.list() == []


def test_nobody_can_be_changed_who_is_not_there(users: Users) -> None:
    for change in (
        users.revoke,
        users.reset,
        lambda name: users.add_card(name, "c"),
        lambda name: users.change_role(name, "lead"),
    ):
        with pytest.raises(SettingsError, match="no user anna"):
            change("anna")
    users.create("anna", "analyst")
    with pytest.raises(SettingsError, match="A role is one of"):
        users.change_role("anna", "admin")
