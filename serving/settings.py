"""Settings of the router, read once from the environment (`SERVING_*`) and then frozen."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# The key of `serving up` where none is given, for callers on this machine: everybody knows it.
LOCAL_KEY = "sk-local"
MAKE_A_KEY = "python -c \"import secrets; print('sk-' + secrets.token_urlsafe(32))\""
_ORIGIN = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#\s,]+")


class Settings(BaseSettings):
    """Every knob with its default; `docs/operations.md` lists them."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", frozen=True)

    host: str = Field(default="0.0.0.0", description="address the routers serve on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="port that all routers of a machine share"
    )
    own_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0,
        description="port that only one router has; 0: any free one. A fixed one allows one router "
        "on a node",
    )
    link_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0,
        description="port of an engine server's links; 0: any free one. A fixed one allows one "
        "replica on a node",
    )
    ops_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="the same for an engine server's /metrics and /health"
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="comma-separated `key` or `key:account`; a key without an account may use any",
    )
    api_keys_file: str = Field(
        default="",
        description="file of more keys, one a line; it is read again when it changes",
    )
    account_policy: Literal["off", "warn", "enforce"] = Field(
        default="off", description="a completion without an account: accept, warn, or refuse"
    )
    account_weights: str = Field(
        default="",
        description="comma-separated `account=weight`: the share of an account where requests wait "
        "for an engine, as a multiple of others', who have 1; counts before the store's",
    )
    store_url: SecretStr = Field(
        default=SecretStr(""),
        description="database of accounts and keys: sqlite:////PATH or postgresql://...; default: "
        "none",
    )
    store_migrates: bool = Field(
        default=True,
        description="bring the store's schema up to date at the start; else: serving store upgrade",
    )
    ledger: Literal["auto", "off", "journal", "store"] = Field(
        default="auto",
        description="where a router puts what each request used before the answer ends: a journal "
        "on its disk, which is shipped to the store, or the store itself; auto: a journal where "
        "there is a store",
    )
    ledger_dir: str = Field(
        default="",
        description="folder of the journals; default: beside SQLite's file, or "
        "~/.local/state/serving/journals",
    )
    ledger_full: Literal["serve", "refuse"] = Field(
        default="serve",
        description="requests while the disk of the journal (or the store, where that is the "
        "ledger) takes no entries: serve them and keep 100,000 entries in memory, or refuse them",
    )
    usage_entries_days: Annotated[int, Field(gt=0)] = Field(
        default=100, description="how long single entries of usage are kept"
    )
    usage_sums_days: Annotated[int, Field(gt=0)] = Field(
        default=800, description="how long sums of usage by the hour and the day are kept"
    )
    keys_stale_s: Annotated[float, Field(gt=0)] = Field(
        default=86_400.0,
        description="how long a router goes on with the store's keys while the store is away",
    )
    trusted_proxies: str = Field(
        default="",
        description="comma-separated addresses and networks of proxies whose X-Forwarded-For is "
        "believed",
    )
    cluster_token: SecretStr = Field(
        default=SecretStr(""), description="secret between routers and engine replicas"
    )
    log_dir: str | None = Field(default=None, description="folder of JSON logs; default: stderr")
    # Room for two images of 10 MiB, which base64 makes a third longer. The link carries 64 MiB.
    public_pages: Literal["auto", "open", "closed"] = Field(
        default="auto",
        description="whether /ready names models and /metrics answers without a key on the shared "
        "port; auto: on loopback only",
    )
    cors_origins: str = Field(
        default="",
        description="comma-separated origins whose web pages may call, as https://host[:port]; "
        "* for all; default: none",
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""),
        description="what /metrics of routers' own ports and of engine servers asks for, if set",
    )
    cache_salt: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="keep each account's prompts and images apart in the engines' caches; auto: "
        "where there may be more than one account",
    )
    max_connections: Annotated[int, Field(gt=0)] = Field(
        default=10_000,
        description="connections of clients to one router; fewer if the limit of open files "
        "(ulimit -n) leaves less room",
    )
    max_body_bytes: Annotated[int, Field(gt=0, le=60 * 1024 * 1024)] = 32 * 1024 * 1024
    max_body_brackets: Annotated[int, Field(gt=0)] = Field(
        default=100_000,
        description="opening brackets and braces in a body, those of its texts too",
    )
    max_body_commas: Annotated[int, Field(gt=0)] = Field(
        default=400_000, description="commas in a body, those of its texts too"
    )
    max_body_escapes: Annotated[int, Field(gt=0)] = Field(
        default=2_000_000, description="backslashes in a body"
    )
    max_header_bytes: Annotated[int, Field(gt=0)] = 16 * 1024
    spool_dir: str | None = Field(
        default=None,
        description="folder of recordings that wait for their answer; default: /var/tmp, or "
        "$TMPDIR where that is read-only",
    )
    spool_bytes: Annotated[int, Field(gt=0)] = Field(
        default=4 * 1024**3,
        description="of all recordings that one router has on disk; more are refused with 503",
    )
    body_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    keepalive_s: Annotated[float, Field(gt=0)] = 10.0
    hold_s: Annotated[float, Field(ge=0)] = Field(
        default=50.0, description="how long a request waits for a model without replicas to start"
    )
    hold_stream_s: Annotated[float, Field(ge=0)] = Field(
        default=600.0, description="the same for a stream, which comments keep alive"
    )
    hold_max: Annotated[int, Field(ge=0)] = Field(
        default=1000,
        description="requests that may wait like this at one router; more are refused at once",
    )
    stuck_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="an engine that makes no step for so long, while requests wait, has to answer "
        "one of its own in half that time, or is replaced",
    )
    zygote: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="fork engine servers from a process on their node that has the engine's "
        "imports; auto: for models without GPUs",
    )
    request_timeout_s: Annotated[float, Field(gt=0)] = 900.0
    quarantine_s: Annotated[float, Field(ge=0)] = Field(
        default=600.0, description="how long a request that an engine died of is refused"
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for each in value.split(","):
            if each.strip() not in ("", "*") and not _ORIGIN.fullmatch(each.strip()):
                raise ValueError(
                    f"'{each.strip()}' is no origin; write https://host or https://host:port, "
                    "without a path"
                )
        return value

    @field_validator("account_weights")
    @classmethod
    def _are_weights(cls, value: str) -> str:
        for each in _items(value):
            account, _, weight = each.rpartition("=")
            try:
                good = bool(account) and 0.001 <= float(weight) <= 1000
            except ValueError:
                good = False
            if not good:
                raise ValueError(
                    f"'{each}' must be ACCOUNT=WEIGHT, with a weight from 0.001 to 1000"
                )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for each in _items(value):
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"{error}; write addresses as 10.0.0.0/8 or ::1") from None
        return value

    @property
    def weights(self) -> dict[str, float]:
        """The weights of accounts that have another than 1."""
        pairs = (each.rpartition("=") for each in _items(self.account_weights))
        return {account: float(weight) for account, _, weight in pairs}

    @property
    def proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks of `trusted_proxies`."""
        return tuple(ipaddress.ip_network(each) for each in _items(self.trusted_proxies))

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return tuple(_items(self.cors_origins.lower()))

    @property
    def keys(self) -> dict[str, str | None]:
        """The API keys, each with the account it is for; None: it may use any."""
        found = {}
        for item in _items(self.api_keys.get_secret_value()):
            key, _, account = item.partition(":")
            if key:
                found[key] = account or None
        return found

    @property
    def pages_are_open(self) -> bool:
        """Whether the shared port shows pages that name models without a key."""
        if self.public_pages == "auto":
            return is_loopback(self.host)
        return self.public_pages == "open"

    def check_key(self) -> None:
        """Refuse a key that everybody knows where others than this machine may call.

        Raises:
            ValueError: the sentence says how to make a key.
        """
        if LOCAL_KEY in self.keys and not is_loopback(self.host):
            raise ValueError(
                f"{self.host or 'every address'} can be reached from other machines, and everybody "
                f"knows the key '{LOCAL_KEY}'; set SERVING_API_KEYS to a key of your own, made "
                f"with: {MAKE_A_KEY}"
            )


def _items(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach: 127.0.0.0/8, ::1 and `localhost`. Other
    names are not looked up: what they stand for may change."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
