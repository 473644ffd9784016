"""Ports: which are free, and what is said of one that is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from local_stacks import MakeConfig

from tidings.errors import ConfigError
from tidings.local import ports
from tidings.local.config import Part, from_environment

ALL = tuple(Part)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port__is_refused_with_its_setting_and_holder(make_config: MakeConfig, taken: int) -> None:
    with pytest.raises(ConfigError) as error:
        ports.settle(make_config(*ALL, prefect_port=taken))

    assert f"port {taken} for prefect is in use by process {os.getpid()}" in str(error.value)
    assert "TIDINGS_PREFECT_PORT" in str(error.value)


def test_taken_ports__are_all_named_at_once(make_config: MakeConfig, taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError) as error:
        ports.settle(make_config(*ALL, web_port=taken, sandbox_port=other.getsockname()[1]))

    assert len(error.value.problems) == 2


def test_a_taken_port__does_not_matter_for_a_part_that_is_not_started(make_config: MakeConfig, taken: int) -> None:
    ports.settle(make_config(Part.POSTGRES, web_port=taken))


def test_the_same_port_twice__is_refused(make_config: MakeConfig) -> None:
    port = ports.free_port()

    with pytest.raises(ConfigError, match="TIDINGS_PORT and TIDINGS_SANDBOX_PORT"):
        ports.settle(make_config(*ALL, web_port=port, sandbox_port=port))


def test_zero__becomes_different_free_ports(make_config: MakeConfig) -> None:
    config = ports.settle(make_config(*ALL))

    chosen = {config.web_port, config.prefect_port, config.sandbox_port, config.postgres_port}
    assert len(chosen) == 4
    assert all(ports.is_free(port) for port in chosen)


def test_the_demo__takes_another_port_and_says_so(make_config: MakeConfig, taken: int) -> None:
    config, said = ports.with_free_ports(make_config(*ALL, web_port=taken))

    assert config.web_port not in (0, taken)
    assert len(said) == 1
    assert f"port {taken} is in use" in said[0]


def test_the_environment__sets_ports() -> None:
    config = from_environment({"TIDINGS_PORT": "8100", "TIDINGS_SANDBOX_PORT": "0"})

    assert (config.web_port, config.prefect_port, config.sandbox_port) == (8100, 4200, 0)


@pytest.mark.parametrize("value", ["http", "-1", "65536"])
def test_the_environment__with_no_port_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="TIDINGS_PORT"):
        from_environment({"TIDINGS_PORT": value})


def test_both_keys__mean_the_real_services() -> None:
    both = {"NOTION_TOKEN": "ntn_x", "RESEND_API_KEY": "re_x"}

    assert from_environment(both).real_services
    assert Part.SANDBOX not in from_environment(both).started
    assert not from_environment({"NOTION_TOKEN": "ntn_x"}).real_services
