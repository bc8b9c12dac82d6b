"""client.py SPEC: runs the ported fuzzing client. Byte strings of latin-1 text become bytes here, and bytes text. And frames
are masked as one number: sections 12 and 13 send gigabytes, which the core would mask byte by byte."""

import json
import sys

import txaio
from autobahn.websocket import protocol
from autobahntestsuite import fuzzing
from autobahntestsuite.latin1 import to_bytes, to_text
from twisted.internet import reactor


class Border(fuzzing.FuzzingClientProtocol):
    """The suite inside speaks text, the protocol core outside bytes."""

    # From the suite to the core. The core itself calls some of these too, with bytes.

    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = to_bytes(payload)
        if payload_len is not None:
            # The core's own repetition divides whole numbers as Python 2 did.
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode, payload, fin, rsv, to_bytes(mask), None, chopsize, sync)

    def sendMessage(self, payload, *args, **kwargs):
        super().sendMessage(to_bytes(payload), *args, **kwargs)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_bytes(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_bytes(reasonUtf8), isReply)
        self.localCloseReason = to_text(self.localCloseReason)

    # From the core to the suite.

    def onMessage(self, payload, isBinary):
        super().onMessage(to_text(payload), isBinary)

    def onPong(self, payload):
        super().onPong(to_text(payload))

    def logRxOctets(self, data):
        super().logRxOctets(to_text(data))

    def logTxOctets(self, data, sync):
        super().logTxOctets(to_text(data), sync)

    def logRxFrame(self, frameHeader, payload):
        super().logRxFrame(frameHeader, [to_text(part) for part in payload])

    def logTxFrame(self, frameHeader, payload, *args):
        super().logTxFrame(frameHeader, to_text(payload), *args)

    def connectionLost(self, reason):
        for name in ("http_request_data", "http_response_data"):
            if hasattr(self, name):
                setattr(self, name, to_text(getattr(self, name)))
        super().connectionLost(reason)


class Masker:
    """What the core's maskers do (RFC 6455 section 5.3)."""

    def __init__(self, mask, length=None):
        self.mask = bytes(mask)
        self.ptr = 0

    def pointer(self):
        return self.ptr

    def reset(self):
        self.ptr = 0

    def process(self, data):
        length, turn = len(data), self.ptr % 4
        mask = ((self.mask[turn:] + self.mask[:turn]) * (length // 4 + 1))[:length]
        self.ptr += length
        return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


protocol.createXorMasker = Masker

# A later txaio than the core was written for wants to be told.
txaio.use_twisted()
with open(sys.argv[1], encoding="utf-8") as spec:
    fuzzing.FuzzingClientProtocol = Border
    fuzzing.startClient(json.load(spec))
reactor.run()
