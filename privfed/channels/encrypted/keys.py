"""Keys, and the party that can decrypt: with it, and nowhere else, lies a decryptor."""

import secrets
import struct
from dataclasses import dataclass, field

import numpy as np
from tenseal import sealapi

from privfed.channels.encrypted.coding import Integers, coder_of, context_of
from privfed.channels.encrypted.envelope import (
    KEY_ID_BYTES,
    Expected,
    Refused,
    parse,
)
from privfed.channels.encrypted.parameters import Notice, Parameters, named
from privfed.channels.encrypted.scratch import Scratch
from privfed.errors import SettingsError

_HEAD = struct.Struct("<16s?16s")  # parameter set, seeded, key id


@dataclass(frozen=True)
class Credentials:
    """What a device encrypts with.

    ``key`` is the secret key where clients hold it, whose ciphertexts are then half as
    long because a seed stands for one half; the public key otherwise.
    """

    parameters: Parameters
    seeded: bool
    key_id: bytes
    key: bytes = field(repr=False)

    def pack(self) -> bytes:
        """For the pipe to a process on the devices' side."""
        name = self.parameters.name.encode()
        return _HEAD.pack(name, self.seeded, self.key_id) + self.key

    @classmethod
    def unpack(cls, data: bytes) -> "Credentials":
        name, seeded, key_id = _HEAD.unpack_from(data)
        parameters = named(name.rstrip(b"\0").decode())
        return cls(parameters, seeded, key_id, data[_HEAD.size :])


class KeyHolder:
    """Made the keys; decrypts sums of ``least`` uploads or more and nothing else."""

    def __init__(self, parameters: Parameters, seeded: bool, least: int) -> None:
        context = context_of(parameters)
        generator = sealapi.KeyGenerator(context)
        scratch = Scratch()
        secret, key = generator.secret_key(), generator.secret_key()
        if not seeded:
            key = sealapi.PublicKey()
            generator.create_public_key(key)
        self.notice = Notice(parameters, seeded, secrets.token_bytes(KEY_ID_BYTES))
        self.credentials = Credentials(
            parameters, seeded, self.notice.key_id, scratch.save(key)
        )
        self._least, self._context, self._scratch = least, context, scratch
        self._decryptor = sealapi.Decryptor(context, secret)
        self._coder = coder_of(parameters, context)

    def read(self, data: bytes, round: int, length: int) -> tuple[Integers, int]:
        """Decrypt a sum: its numbers, and how many uploads it is said to hold.

        Raises Refused where it is no sum under this key, and SettingsError where it
        holds too few uploads.
        """
        parameters, blocks = self.notice.parameters, self.notice.blocks(length)
        room, key_id = parameters.room(seeded=False), self.notice.key_id
        sum_ = parse(data, Expected("sum", key_id, round, length, blocks, room))
        if sum_.number < self._least:
            raise SettingsError(
                f"he: the key holder decrypts no sum of {sum_.number} uploads, fewer "
                f"than min_cohort={self._least}; take more clients a round"
            )
        numbers = np.zeros((blocks, parameters.degree), dtype=np.int64)
        for index, block in sum_.blocks.items():
            numbers[index] = self._decrypted(block)
        found = numbers.reshape(-1)
        if found[length:].any() and not parameters.noise:
            raise Refused("it does not decrypt to a sum")
        return found[:length], sum_.number

    def _decrypted(self, block: bytes) -> Integers:
        ciphertext, plain = sealapi.Ciphertext(self._context), sealapi.Plaintext()
        try:
            self._scratch.load(ciphertext, self._context, block)
        except ValueError as error:
            raise Refused(str(error)) from None
        parameters = self.notice.parameters
        # another key leaves no budget, and SEAL would return whatever comes out
        budget = self._decryptor.invariant_noise_budget
        if parameters.scheme == "bfv" and budget(ciphertext) < 1:
            raise Refused("it was made with another key, or has too much noise")
        self._decryptor.decrypt(ciphertext, plain)
        numbers = self._coder.decode(plain)
        if np.abs(numbers).max() > parameters.capacity + parameters.noise:
            raise Refused("it was made with another key: its numbers are too large")
        return numbers
