"""The work of kind `suggestions`: reads a text, and suggests what to say better.

The payload is {"text": "…"}; the result {"suggestions": [{"id", "kind", "text", "start", "end", "message"}]}, in the order of
the text. `start` and `end` are offsets in characters (code points), and `text` is the passage between them. When there was
more to say than fits into a result, `truncated` is true and `found` is how much there was.

Every step is one pass over the words, so the time grows with the length of the text and with nothing else.
"""
import json
import re
import sys
from typing import Callable, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Tuple

BAD_PAYLOAD = 65
"""The exit code that fails the job for good."""
WORDS_MAX = 30
"""Words of a sentence that is not too long yet."""
SUGGESTIONS_MAX = 500
PASSAGE_MAX = 2_000
"""Characters of a passage: of a longer sentence its beginning is shown."""
RESULT_BYTES_MAX = 200_000
"""Bytes of all suggestions: a result may have 256 KiB."""

WORD = re.compile(r"\w+(?:['’-]\w+)*")
END = re.compile(r"(?P<stop>[.!?…。！？]+)[\"'”’»)\]]*|\n[ \t\r\f\v]*\n")
"""A stop with the quotes that close behind it, or an empty line. It never looks back or ahead."""

ABBREVIATED = frozenset(
    "a.m al approx ca cf co corp dept dr e.g ed eds eq etc fig figs i.e inc jr ltd mr mrs ms no nos p.a p.m pp prof resp rev "
    "sec sr st u.k u.s viz vol vs".split()
)
"""Words that a stop ends without ending the sentence."""
BE = frozenset("am is are was were be been being isn't aren't wasn't weren't".split())
ADVERBS = frozenset("not never also always often still just already then now soon first once only ever even yet being been".split())
PARTICIPLES = frozenset(
    "beaten begun bent bitten blown born borne bought bound broken brought built burnt caught chosen cut dealt done drawn driven "
    "drunk eaten fallen fed felt flown forbidden forgotten forgiven found frozen given gone grown heard held hidden hit hurt kept "
    "known laid led left lent let lit lost made meant met overcome paid proven put read ridden risen run said seen sent set shaken "
    "shot shown shut sold spent spoken spread stolen stuck struck sung sunk sworn taken taught thought thrown told torn understood "
    "withdrawn woken won worn written".split()
)
NOT_PARTICIPLES = frozenset(
    "bed bleed breed creed deed exceed excited feed greed hundred indeed interested kindred married naked need pleased proceed "
    "red reed sacred seed shed sled speed succeed supposed tired weed wicked worried".split()
)
VAGUE = (
    "a bit of|a bunch of|a couple of|a few|a good deal of|a great deal of|a great many|a handful of|a large number of|a lot of|"
    "a number of|a small number of|a variety of|countless|lots of|loads of|many|multiple|numerous|plenty of|quite a few|"
    "quite a lot of|several|some|tons of|various"
)
KNOWN = frozenset("AM EU OK PM TV UK UN USA II III IV VI VII VIII IX XI XII".split())
"""What nobody needs to be told: the rest are numerals."""


class Word(NamedTuple):
    """A word, and where it stands."""

    text: str
    start: int
    end: int


class Suggestion(NamedTuple):
    """A passage, and what is to be done about it."""

    start: int
    end: int
    kind: str
    message: str


def refuse(message: str) -> NoReturn:
    """Fails the job for good."""
    print(f"suggestions: {message}", file=sys.stderr)
    sys.exit(BAD_PAYLOAD)


def tell(**said: object) -> None:
    """Says a line to the worker."""
    print(json.dumps(said), flush=True)


def read_text(line: bytes) -> str:
    """The text of the payload."""
    try:
        payload = json.loads(line)
    except (ValueError, RecursionError) as error:
        refuse(f"the payload is no JSON: {error}")
    if not isinstance(payload, dict) or "text" not in payload:
        refuse('the payload has no text; write {"text": "What is to be read."}')
    text = payload["text"]
    if not isinstance(text, str):
        refuse(f"text is {json.dumps(text)[:40]}, which is no string; write the text to be read")
    half = next((at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
    if half is not None:
        refuse(f"text has half of a surrogate pair at character {half}; write both halves or neither")
    return text


def words_of(text: str) -> List[Word]:
    """All words, in order."""
    return [Word(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]


def is_abbreviated(text: str, stop: int) -> bool:
    """Whether the full stop at `stop` ends an abbreviation or an initial."""
    begin = stop
    while begin > 0 and stop - begin < 8 and (text[begin - 1].isalpha() or text[begin - 1] == "."):
        begin -= 1
    word = text[begin:stop].lower()
    return word in ABBREVIATED or (len(word) == 1 and word not in "ai")


def ends_sentence(text: str, match: "re.Match[str]") -> bool:
    """Whether what `END` found ends a sentence; a decimal, a name of a file or an abbreviation does not."""
    stop = match.group("stop")
    if stop is None or match.end() == len(text) or stop[0] in "。！？":
        return True
    if not text[match.end()].isspace():
        return False
    return stop != "." or not is_abbreviated(text, match.start())


def sentences_of(text: str) -> Iterator[Tuple[int, int]]:
    """Where sentences begin and end; white space between two may belong to either."""
    begin = 0
    for match in END.finditer(text):
        if ends_sentence(text, match):
            yield begin, match.end()
            begin = match.end()
    yield begin, len(text)


def long_sentences(text: str, words: List[Word]) -> Iterator[Suggestion]:
    """Sentences of more words than one can hold in mind."""
    at = 0
    for _, end in sentences_of(text):
        first = at
        while at < len(words) and words[at].start < end:
            at += 1
        count = at - first
        if count > WORDS_MAX:
            start = words[first].start
            stop, most = start + len(text[start:end].rstrip()), start + PASSAGE_MAX
            if stop > most:
                stop = max((word.end for word in words[first:at] if word.end <= most), default=most)
            message = f"This sentence has {count} words; say it in sentences of at most {WORDS_MAX}."
            yield Suggestion(start, stop, "long-sentence", message)


def is_participle(word: str) -> bool:
    """Whether a word (in small letters) is a past participle, as far as its form shows."""
    return word in PARTICIPLES or (word.endswith("ed") and 3 < len(word) < 40 and word not in NOT_PARTICIPLES)


def passive_voice(text: str, words: List[Word]) -> Iterator[Suggestion]:
    """A form of `be` with a participle, at most three adverbs between."""
    lower = [word.text.lower().replace("’", "'") for word in words]
    for at, form in enumerate(lower):
        if form not in BE:
            continue
        for behind in range(at + 1, min(at + 5, len(words))):
            if not text[words[behind - 1].end : words[behind].start].isspace():
                break
            if is_participle(lower[behind]):
                message = "Passive voice: name who does it, and say it in the active."
                yield Suggestion(words[at].start, words[behind].end, "passive-voice", message)
                break
            if lower[behind] not in ADVERBS and not lower[behind].endswith("ly"):
                break


def phrases() -> Dict[str, List[List[str]]]:
    """The vague quantities by their first word, the longest first."""
    table: Dict[str, List[List[str]]] = {}
    for phrase in VAGUE.split("|"):
        parts = phrase.split()
        table.setdefault(parts[0], []).append(parts)
    for same in table.values():
        same.sort(key=len, reverse=True)
    return table


def vague_quantities(text: str, words: List[Word]) -> Iterator[Suggestion]:
    """Amounts that could be any."""
    table, lower, free = phrases(), [word.text.lower() for word in words], 0
    for at, first in enumerate(lower):
        if at < free:
            continue
        for parts in table.get(first, ()):
            last = at + len(parts) - 1
            if lower[at : last + 1] == parts and all(
                text[words[n].end : words[n + 1].start].isspace() for n in range(at, last)
            ):
                message = "A vague quantity: say how many, or how much."
                yield Suggestion(words[at].start, words[last].end, "vague-quantity", message)
                free = last + 1
                break


def abbreviation(word: str) -> Optional[str]:
    """The abbreviation that a word is, without the s of its plural."""
    stem = word[:-1] if word.endswith("s") else word
    is_one = 2 <= len(stem) <= 8 and stem.isalnum() and stem.isupper() and stem[0].isalpha()
    return stem if is_one and sum(map(str.isalpha, stem)) >= 2 and stem not in KNOWN else None


def is_defined(text: str, words: List[Word], at: int, short: str) -> bool:
    """Whether the words before `(ABC)`, or those in `ABC (…)`, begin with the letter that the abbreviation begins with."""
    word, reach = words[at], len(short) + 4
    if text[word.start - 1 : word.start] == "(" and text[word.end : word.end + 1] == ")":
        near = words[max(0, at - reach) : at]
    elif text[word.end : word.end + 2] == " (":
        close = text.find(")", word.end, word.end + 200)
        near = [other for other in words[at + 1 : at + 1 + reach] if other.end <= close]
    else:
        return False
    return any(other.text[0].upper() == short[0] and other.text.upper() != short for other in near)


def shouted(text: str) -> Callable[[int], bool]:
    """Tells of positions, asked in their order, whether they stand in a line of capitals: a heading has no abbreviations."""
    end, answer = 0, False

    def is_shouted(at: int) -> bool:
        nonlocal end, answer
        if at >= end:
            begin = text.rfind("\n", end, at) + 1 or end
            found = text.find("\n", at)
            end = len(text) if found < 0 else found + 1
            line = text[begin:end]
            answer = not any(map(str.islower, line)) and len(line.split(None, 2)) > 1
        return answer

    return is_shouted


def undefined_abbreviations(text: str, words: List[Word]) -> Iterator[Suggestion]:
    """Abbreviations that the text nowhere says in full, each where it stands first."""
    first: Dict[str, Word] = {}
    defined, is_shouted = set(), shouted(text)
    for at, word in enumerate(words):
        short = abbreviation(word.text)
        if short is None or is_shouted(word.start):
            continue
        first.setdefault(short, word)
        if short not in defined and is_defined(text, words, at, short):
            defined.add(short)
    for short, word in first.items():
        if short not in defined:
            message = f"{short} is not defined: say it in full where it stands first, as in: Full Name ({short})."
            yield Suggestion(word.start, word.end, "undefined-abbreviation", message)


RULES: Tuple[Tuple[str, Callable[[str, List[Word]], Iterator[Suggestion]]], ...] = (
    ("measuring sentences", long_sentences),
    ("looking for passive voice", passive_voice),
    ("looking for abbreviations", undefined_abbreviations),
    ("looking for vague quantities", vague_quantities),
)


def bounded(text: str, found: List[Suggestion]) -> Dict[str, object]:
    """The result: as many suggestions, from the beginning, as fit."""
    shown: List[Dict[str, object]] = []
    room = RESULT_BYTES_MAX
    for number, one in enumerate(sorted(found)[:SUGGESTIONS_MAX], 1):
        entry: Dict[str, object] = {"id": str(number), "kind": one.kind, "text": text[one.start : one.end]}
        entry.update(start=one.start, end=one.end, message=one.message)
        room -= len(json.dumps(entry)) + 1
        if room < 0:
            break
        shown.append(entry)
    result: Dict[str, object] = {"suggestions": shown}
    if len(shown) < len(found):
        result.update(truncated=True, found=len(found))
    return result


def main() -> None:
    """Reads the payload, and goes rule by rule."""
    text = read_text(sys.stdin.buffer.readline())
    words = words_of(text)
    found: List[Suggestion] = []
    for number, (phase, rule) in enumerate(RULES):
        tell(progress=100 * number / len(RULES), message=phase)
        found.extend(rule(text, words))
    result = bounded(text, found)
    tell(progress=100, message="done")
    tell(result=result)


if __name__ == "__main__":
    main()
