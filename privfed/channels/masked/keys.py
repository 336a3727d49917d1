"""Keys between two parties: X25519, HKDF-SHA256 and an authenticated cipher."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32  # a private key, a public key, a seed, an agreed key
TAG_BYTES = 16
_NONCE = bytes(12)  # every message has a key of its own, so its nonce may be constant


def new() -> X25519PrivateKey:
    """A key drawn by the operating system."""
    return X25519PrivateKey.generate()


def agree(own: X25519PrivateKey, other: bytes, purpose: bytes, keys: int = 1) -> bytes:
    """The keys, end to end, that two owners of private keys share for one purpose."""
    secret = own.exchange(X25519PublicKey.from_public_bytes(other))
    return HKDF(hashes.SHA256(), keys * KEY_BYTES, None, purpose).derive(secret)


def public(own: X25519PrivateKey) -> bytes:
    return own.public_key().public_bytes_raw()


def restored(private: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(private)


def seal(key: bytes, message: bytes) -> bytes:
    """Encrypt and authenticate the one message of this key."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, message, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The message; ValueError where it is not what the sender sealed."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise ValueError("a sealed message was changed on its way") from None
