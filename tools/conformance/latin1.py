"""The few library calls of the suite that need real bytes, for byte strings that are text of latin-1 characters."""

import binascii as _binascii
import builtins
import hashlib as _hashlib

from autobahn.websocket import utf8validator


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def to_text(data):
    return data.decode("latin-1") if isinstance(data, bytes) else data


class binascii:
    @staticmethod
    def b2a_hex(data):
        return to_text(_binascii.b2a_hex(to_bytes(data)))

    hexlify = b2a_hex


class hashlib:
    class sha1:
        def __init__(self):
            self._hash = _hashlib.sha1()

        def update(self, data):
            self._hash.update(to_bytes(data))

        def digest(self):
            return to_text(self._hash.digest())


class Utf8Validator(utf8validator.Utf8Validator):
    def validate(self, data):
        return super().validate(to_bytes(data))


def open(path, mode):
    """Reports are written byte for byte; a character outside latin-1 in one is spelled out."""
    if "b" in mode:
        return builtins.open(path, mode)
    return builtins.open(path, mode, encoding="latin-1", errors="backslashreplace")
