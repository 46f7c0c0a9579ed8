"""Who takes the keys of an interactive session.

At any time one of three does:

- the line editor, while there is a prompt;
- a dialogue: the pager, a watch, or a question that a verb asks. It takes only what is typed after it has begun: keys
  typed ahead answer no question, and turn no page;
- nobody, while a verb runs. Then keys are kept for the next prompt, but Ctrl-C stops the verb and forgets them, as the
  kernel's line discipline does.

While the client does not read, keys wait for that too, as each may cost a screenful; only Ctrl-C does not.

Keys come by the ten thousand where somebody pipes a file into a console, and one may take a millisecond: they are
handed out a few at a time, between which others have their turn.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from netd.ssh.terminal_keys import Key, KeyDecoder, Pressed

TYPE_AHEAD = 4096
"""Keys kept: as much as the kernel keeps of a terminal's. What comes after them is dropped."""

AT_ONCE = 0.001
"""Seconds for which keys are handed out."""

INTERRUPT = Pressed("C-c")

T = TypeVar("T")


class Dialogue(Protocol):
    """What takes the keys while a verb runs."""

    def press(self, key: Key) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def end(self) -> None: ...


class Keyboard:
    """Bytes from the client become keys, and each goes where it belongs. `press` is the line editor's."""

    def __init__(self, press: Callable[[Key], None], clock: IReactorTime) -> None:
        self._press = press
        self._clock = clock
        self._decoder = KeyDecoder()
        self._kept: deque[Key] = deque()
        self._for_dialogue: deque[Key] = deque()
        self.prompting = False
        """Whether the line editor takes keys."""
        self.interrupt: Callable[[], object] | None = None
        """Stops the verb that runs."""
        self.dialogue: Dialogue | None = None
        self.paused: Deferred[None] | None = None
        """Fires when the client reads again; None while it does."""
        self.ended = False
        """Whether no more bytes will come."""

    @property
    def empty(self) -> bool:
        """Whether no key is kept."""
        return not self._kept

    def receive(self, data: bytes) -> None:
        """Bytes, cut anyhow."""
        for key in self._decoder.feed(data):
            if self.dialogue is not None:
                if key == INTERRUPT:
                    self._for_dialogue.clear()
                    self.dialogue.press(key)
                elif self.paused is None and len(self._for_dialogue) < TYPE_AHEAD:
                    self._for_dialogue.append(key)
            elif self.interrupt is not None and key == INTERRUPT:
                self._kept.clear()
                self.interrupt()
            else:
                self.keep(key)

    def keep(self, key: Key) -> None:
        """Keep a key for the next prompt."""
        if len(self._kept) < TYPE_AHEAD:
            self._kept.append(key)

    def hand_out(self) -> bool:
        """Give keys to the dialogue, or kept ones to the line editor, while it takes them; whether there are more."""
        until = self._clock.seconds() + AT_ONCE
        while self.paused is None:
            if self.dialogue is not None and self._for_dialogue:
                self.dialogue.press(self._for_dialogue.popleft())
            elif self.dialogue is None and self.prompting and self._kept:
                self._press(self._kept.popleft())
            else:
                break
            if self._clock.seconds() >= until:
                return True
        return False

    def forget(self) -> None:
        """What was typed ahead is for nobody any more."""
        self._kept.clear()
        self._for_dialogue.clear()

    def end(self) -> None:
        """No more bytes will come."""
        self.ended = True
        if self.dialogue is not None:
            self.dialogue.end()

    def pause(self) -> None:
        """The client does not read."""
        if self.paused is None:
            self.paused = Deferred()
            if self.dialogue is not None:
                self.dialogue.pause()

    def resume(self) -> None:
        """The client reads again."""
        if self.paused is not None:
            paused, self.paused = self.paused, None
            if self.dialogue is not None:
                self.dialogue.resume()
            paused.callback(None)

    async def converse(self, dialogue: Dialogue, done: Deferred[T]) -> T:
        """Give the keys to a dialogue until it is done."""
        self.dialogue = dialogue
        if self.paused is not None:
            dialogue.pause()
        if self.ended:
            dialogue.end()
        try:
            return await done
        finally:
            self.dialogue = None
            for key in self._for_dialogue:
                self.keep(key)
            self._for_dialogue.clear()
