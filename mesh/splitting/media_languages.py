"""The languages of tracks: an mp4 holds codes of three letters (ISO 639-2), other files also those of two."""

from __future__ import annotations

#: ISO 639-1 and 639-2 codes of the languages that films mostly have.
_CODES = (
    "ar:ara bg:bul bn:ben bs:bos ca:cat cs:ces cy:cym da:dan de:deu el:ell en:eng es:spa et:est eu:eus fa:fas "
    "fi:fin fr:fra ga:gle gl:glg he:heb hi:hin hr:hrv hu:hun hy:hye id:ind is:isl it:ita ja:jpn ka:kat kk:kaz "
    "ko:kor lt:lit lv:lav mk:mkd ms:msa nb:nob nl:nld nn:nno no:nor pa:pan pl:pol pt:por ro:ron ru:rus sk:slk "
    "sl:slv sq:sqi sr:srp sv:swe sw:swa ta:tam te:tel th:tha tl:tgl tr:tur uk:ukr ur:urd vi:vie zh:zho"
)
_LONG = {pair[:2]: pair[3:] for pair in _CODES.split()}


def language_in(container: str, code: str) -> str:
    """The code that a container holds for a language, such as eng, en or en-US; "" when it has none."""
    if container != "mp4":
        return code
    language = code.partition("-")[0].lower()
    language = _LONG.get(language, language)
    return language if len(language) == 3 and language.isascii() and language.isalpha() else ""
