"""Settings of the service."""

from __future__ import annotations

import os
from dataclasses import dataclass

from spacy_slmre.util.settings import check_minimum, check_positive, check_types

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine in the Host header."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of `slmre serve`.

    Attributes:
        host: Address to listen on. By default, only this machine can reach the service; "0.0.0.0" listens on all
            networks.
        port: Port; 0 for any free one.
        allowed_hosts: Names in the Host header by which clients may address the service, besides `host`, 127.0.0.1 and
            localhost. "*" allows all, for instance behind a proxy that checks them.
        api_key_env: Environment variable with a key that clients must send as "Authorization: Bearer KEY"; null
            requires no key.
        max_bytes: Maximum size of a request in bytes.
        max_texts: Maximum number of texts in a request.
        max_waiting: Maximum number of texts that wait for the pipeline or are in it; further requests get status 429.
        batch_size: Texts of several requests that are processed together.
        timeout: Seconds until a request gets an error.
    """

    host: str = "127.0.0.1"
    port: int = 5055
    allowed_hosts: tuple[str, ...] = ()
    api_key_env: str | None = None
    max_bytes: int = 200_000
    max_texts: int = 64
    max_waiting: int = 256
    batch_size: int = 32
    timeout: float = 300.0

    def __post_init__(self) -> None:
        check_types(self, "serve")
        check_minimum(self, "serve", max_bytes=1, max_texts=1, max_waiting=self.max_texts, batch_size=1)
        check_positive(self, "serve", names=["timeout"])

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def known_hosts(self) -> frozenset[str]:
        """The names in the Host header that are allowed, in lower case; "*" allows all."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset(name.lower() for name in (*LOCAL_HOSTS, own, *self.allowed_hosts))

    def read_api_key(self) -> str | None:
        """Return the key that clients must send. Raises ValueError if the variable has no usable key."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(
                f"The environment variable {self.api_key_env} must contain the API key, without spaces and with "
                "ASCII characters only: set it, or set serve.api_key_env to null to require no key."
            )
        return key
