"""A writer of H.264 headers, independent of the reader."""

from __future__ import annotations


class Bits:
    """Writes H.264 syntax elements (7.2, 9.1)."""

    def __init__(self) -> None:
        self.text = ""

    def u(self, count: int, value: int) -> Bits:
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def ue(self, *values: int) -> Bits:
        for value in values:
            digits = f"{value + 1:b}"
            self.text += "0" * (len(digits) - 1) + digits
        return self

    def se(self, *values: int) -> Bits:
        return self.ue(*(2 * value - 1 if value > 0 else -2 * value for value in values))

    def unit(self, first: int) -> bytes:
        """Return the NAL unit: the first byte, then the bits with emulation prevention bytes."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        data = int(text, 2).to_bytes(len(text) // 8, "big")
        out, zeros = bytearray([first]), 0
        for byte in data:
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = 0 if byte else zeros + 1
        return bytes(out)
