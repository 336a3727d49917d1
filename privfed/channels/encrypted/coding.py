"""Integers into plaintexts of either scheme and back, and the context for them."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from tenseal import sealapi

from privfed.channels.encrypted.parameters import Parameters

Integers = npt.NDArray[np.int64]


def context_of(parameters: Parameters) -> Any:
    """SEAL's context, which holds no key; SEAL checks the security once more."""
    schemes = {"bfv": sealapi.SCHEME_TYPE.BFV, "ckks": sealapi.SCHEME_TYPE.CKKS}
    made = sealapi.EncryptionParameters(schemes[parameters.scheme])
    made.set_poly_modulus_degree(parameters.degree)
    primes = sealapi.CoeffModulus.Create(parameters.degree, [*parameters.primes])
    made.set_coeff_modulus(primes)
    if parameters.plain_modulus:
        made.set_plain_modulus(parameters.plain_modulus)
    context = sealapi.SEALContext(made, True, sealapi.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ValueError(f"{parameters.name}: {context.parameters_error_message()}")
    return context


class Coder(ABC):
    """Turns ``degree`` integers into one plaintext and back."""

    @abstractmethod
    def encode(self, numbers: Integers) -> Any: ...

    @abstractmethod
    def decode(self, plain: Any) -> Integers: ...


class Batched(Coder):
    """BFV: an integer a slot, exact."""

    def __init__(self, context: Any) -> None:
        self._encoder = sealapi.BatchEncoder(context)

    def encode(self, numbers: Integers) -> Any:
        plain = sealapi.Plaintext()
        self._encoder.encode(numbers.tolist(), plain)
        return plain

    def decode(self, plain: Any) -> Integers:
        return np.array(self._encoder.decode_int64(plain), dtype=np.int64)


class Paired(Coder):
    """CKKS: two integers a slot, as the parts of a complex number, at scale 1.

    Adding never mixes the two parts, so slots hold twice what real numbers would. The
    integers are large; the noise is in their last digits.
    """

    def __init__(self, context: Any) -> None:
        self._encoder = sealapi.CKKSEncoder(context)
        self._level = context.first_parms_id()

    def encode(self, numbers: Integers) -> Any:
        plain = sealapi.Plaintext()
        real, imaginary = numbers.astype(np.float64).reshape(2, -1)
        pairs = (real + 1j * imaginary).tolist()
        self._encoder.encode(pairs, self._level, 1.0, plain)
        return plain

    def decode(self, plain: Any) -> Integers:
        pairs = np.array(self._encoder.decode_complex(plain))
        parts = np.rint(np.concatenate([pairs.real, pairs.imag]))
        numbers: Integers = np.clip(parts, -(2.0**62), 2.0**62).astype(np.int64)
        return numbers


def coder_of(parameters: Parameters, context: Any) -> Coder:
    return Batched(context) if parameters.scheme == "bfv" else Paired(context)
