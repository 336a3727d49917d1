"""The devices' side: a vector of integers becomes an envelope."""

import struct
from dataclasses import dataclass

import numpy as np
from tenseal import sealapi

from privfed.channels.encrypted.coding import Integers, coder_of, context_of
from privfed.channels.encrypted.envelope import Envelope
from privfed.channels.encrypted.keys import Credentials
from privfed.channels.encrypted.scratch import Scratch

_HEAD = struct.Struct("<IqII")  # round, client, length, blocks


@dataclass(frozen=True)
class Job:
    """One client's vector: the blocks of it that may hold something."""

    round: int
    client: int
    length: int
    places: tuple[int, ...]
    numbers: Integers  # (places, degree)

    def pack(self) -> bytes:
        count = len(self.places)
        head = _HEAD.pack(self.round, self.client, self.length, count)
        return head + struct.pack(f"<{count}I", *self.places) + self.numbers.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "Job":
        round, client, length, count = _HEAD.unpack_from(data)
        places = struct.unpack_from(f"<{count}I", data, _HEAD.size)
        numbers = np.frombuffer(data, np.int64, offset=_HEAD.size + 4 * count)
        return cls(round, client, length, places, numbers.reshape(count, -1))


class Device:
    """Encrypts with the credentials that devices were given."""

    def __init__(self, credentials: Credentials) -> None:
        parameters = credentials.parameters
        self._credentials, self._scratch = credentials, Scratch()
        self._context = context_of(parameters)
        self._coder = coder_of(parameters, self._context)
        kind = sealapi.SecretKey if credentials.seeded else sealapi.PublicKey
        key = kind()
        self._scratch.load(key, self._context, credentials.key)
        self._encryptor = sealapi.Encryptor(self._context, key)

    def seal(self, job: Job) -> bytes:
        """The envelope of one upload."""
        blocks = {
            place: self._encrypted(numbers)
            for place, numbers in zip(job.places, job.numbers, strict=True)
        }
        own = self._credentials
        envelope = Envelope(
            "upload", own.key_id, job.round, job.client, job.length, blocks
        )
        return envelope.pack(own.parameters.room(own.seeded))

    def _encrypted(self, numbers: Integers) -> bytes:
        plain = self._coder.encode(numbers)
        if self._credentials.seeded:
            return self._scratch.save(self._encryptor.encrypt_symmetric(plain))
        ciphertext = sealapi.Ciphertext()
        self._encryptor.encrypt(plain, ciphertext)
        return self._scratch.save(ciphertext)
