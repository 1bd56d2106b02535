"""What tools/deploy.py says to the person before it, and asks.

All that it prints goes through shown(), whoever it is from: a board, a server, a file.
"""

import getpass
import re
import sys

import commands
from commands import put

SHOWN_MAX = 1000  # characters of a line
ANSWER_MAX = 512  # characters
TRIES = 3


class DeployError(Exception):
    """What is wrong, in one line that one can act on."""


def shown(text):
    """Return a text as one line that does nothing to the terminal, whoever it is from.

    Control characters, and those that turn the direction of writing or end a line, are escaped.
    """
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def say(text):
    put("deploy: " + shown(commands.said(text)))


def is_somebody_there():
    """Tell whether there is a person at a terminal to be asked."""
    # None: whoever has started us has closed it.
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def confirm(question, is_yes=False):
    """Ask a person; return whether they agree.

    Args:
        is_yes: they have agreed beforehand.

    Raises:
        DeployError: nobody is there to be asked.
    """
    if is_yes:
        say(question + " yes")
        return True
    if not is_somebody_there():
        raise DeployError("%s (nobody is here to be asked: --yes says so)" % question)
    try:
        return read_line("deploy: %s (y/n) " % shown(question)).lower() in ("y", "yes")
    except (EOFError, UnicodeError):
        return False


def read_line(prompt):
    """Return a line that a person types, stripped; raise EOFError if there is none.

    What is longer than ANSWER_MAX is cut off, so that it answers no other question.
    """
    put(prompt, end="")
    answer = rest = sys.stdin.readline(ANSWER_MAX)
    while len(rest) == ANSWER_MAX and rest[-1] != "\n":
        rest = sys.stdin.readline(ANSWER_MAX)
    if not answer:
        raise EOFError
    return answer.strip()


def ask(question, check=str, default=None, is_secret=False):
    """Ask a person for a text.

    Args:
        check: function that returns what is made of the answer, or raises ValueError with the
            rule that it breaks; it is asked for again then. No rule shows a secret answer.
        default: what an empty answer stands for; None: there is no such thing.
        is_secret: what is typed is not shown.

    Raises:
        DeployError: TRIES answers were no good, or nobody answers.
    """
    prompt = "  %s%s: " % (shown(question), " [%s]" % shown(default) if default else "")
    for _ in range(TRIES):
        try:
            answer = getpass.getpass(prompt) if is_secret else read_line(prompt) or default or ""
            answer.encode()  # else the terminal has sent bytes that are no text
            if re.search("[\0-\x1f\x7f-\x9f]", answer):
                raise ValueError("no control characters, as an arrow key types them")
            if len(answer) >= ANSWER_MAX:
                raise ValueError("at most %d characters" % (ANSWER_MAX - 1))
            return check(answer)
        except EOFError:
            raise DeployError("nobody answers; nothing was written") from None
        except UnicodeError:
            say("  not so: these are no characters of UTF-8")
        except ValueError as error:
            say("  not so: %s" % error)
    raise DeployError("%d answers were no good; nothing was written" % TRIES)
