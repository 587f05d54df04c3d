"""A terminal of so many columns that wraps its lines anew when it is resized, as tmux and most others do."""

import re

TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r)|(\n)|(.)", re.DOTALL)


class FakeTerminal:
    """What a person sees of the text that was written so far. The cursor never leaves column 0 upwards."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows: list[list[str]] = [[]]  # lines, each as its screen rows joined
        self.wraps: list[bool] = [False]  # whether a row goes on in the next
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for count, code, back, down, letter in TOKEN.findall(text):
            if back:
                self.column = 0
            elif down:
                self._down(wraps=False)
            elif letter:
                self._letter(letter)
            else:
                self._control(code, int(count or 0))

    def _control(self, code: str, count: int) -> None:
        if code == "A":
            self.row = max(0, self.row - (count or 1))
        elif code == "K":
            self.rows[self.row] = []
        elif code == "J":
            del self.rows[self.row + 1 :], self.wraps[self.row + 1 :]
            self.rows[self.row], self.wraps[self.row] = self.rows[self.row][: self.column], False

    def _letter(self, letter: str) -> None:
        if self.column == self.width:
            self._down(wraps=True)
            self.column = 0
        row = self.rows[self.row]
        row += [" "] * (self.column + 1 - len(row))
        row[self.column] = letter
        self.column += 1

    def _down(self, *, wraps: bool) -> None:
        self.wraps[self.row] = wraps
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])
            self.wraps.append(False)

    def resize(self, width: int) -> None:
        """Wrap anew; the cursor stays at the first letter of its line."""
        lines, line, current = [], [], 0
        for number, row in enumerate(self.rows):
            if number == self.row:
                current = len(lines)
            line += row
            if not self.wraps[number]:
                lines.append(line)
                line = []
        self.width, self.rows, self.wraps = width, [], []
        for number, whole in enumerate(lines):
            if number == current:
                self.row = len(self.rows)
            pieces = [whole[start : start + width] for start in range(0, len(whole), width)] or [[]]
            self.rows += pieces
            self.wraps += [True] * (len(pieces) - 1) + [False]
        self.column = 0

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]
