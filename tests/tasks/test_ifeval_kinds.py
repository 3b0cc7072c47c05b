"""Every kind of checkable instruction, with texts that follow it and texts that do not, judged by hand."""

import time

import pytest

from tenth.tasks.ifeval.kinds import KINDS, problem_with
from tenth.tasks.ifeval.language import LANGUAGES, detect_language
from tenth.tasks.ifeval.text_parts import count_capital_words, count_sentences, count_words

REQUEST = "Write a haiku. Use no commas."

# kind, values, texts that follow it, texts that do not
CASES = [
    ("keywords:existence", {"keywords": ["mom", "Rain"]}, ["Moments of rain"], ["mom", "rain", "mo m rain"]),
    (
        "keywords:frequency",
        {"keyword": "fog", "frequency": 2, "relation": "at least"},
        ["Fog and foggy fog", "fogfog"],
        ["fog", "none"],
    ),
    (
        "keywords:frequency",
        {"keyword": "fog", "frequency": 2, "relation": "less than"},
        ["fog", "none"],
        ["fog fog", "Foggy FOG"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, ["rocket"], ["a Rock.", "rock-solid"]),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_frequency": 2, "let_relation": "at least"},
        ["Quiet queue"],
        ["quiet"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
        ["one #"],
        ["# and #"],
    ),
    (
        "language:response_language",
        {"language": "sw"},
        ["Habari ya asubuhi, leo ni siku nzuri sana ya kufanya kazi"],
        ["Good morning, today is a fine day to go to work"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?", "It rains. He asked: why? No idea"],
        ["One. Two.", "Mr. Smith met Dr. No in the U.S. last year."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        ["Only one, e.g. this.", "Pi is 3.14 or so"],
        ["One. Two."],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        ["one two three four", "don't go now"],
        ["one two three"],
    ),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, ["a b c"], ["a b c d"]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***\none\n***\ntwo\n***"],
        ["one\n\ntwo", "one\n***\n***\ntwo", "one\n***\ntwo\n***\nthree"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        ["Oak trees.\n\nElm, of course.", 'Oak.\n\n"Elm" it is.'],
        ["Elm.\n\nOak.", "Oak.\n\nElms.", "Oak.\n\nElm.\n\nAsh.", "Oak.\nElm."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Call", "p. s. x"],
        ["PS x"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye.\nP.P.S. Call"], ["P.S. x"]),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], at [place]", "[a][b]"],
        ["Dear [name]", "[one\ntwo] [x]"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "Text\n- one\n  - two", "* one\n**bold**\n- two"],
        ["* one", "* one\n* two\n* three", "**one**\n**two**"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe.", "Well: My answer is no."],
        ["my answer is yes.", "My answer is perhaps."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "*one* and **two**"],
        ["*one*", "* * and *one*", "*one\ntwo*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\nx\nSECTION 2\ny"],
        ["SECTION 1\nx", "Section 1\nSection 2", "SECTION A\nSECTION B"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```", "3"],
        ["{'a': 1}", '{"a": 1', 'Here: {"a": 1}'],
    ),
    ("detectable_format:title", {}, ["<<Rain>>\nIt falls."], ["<Rain>", "<<>>", "<<\nRain\n>>", "<< >>"]),
    (
        "combination:two_responses",
        {},
        ["One.\n******\nTwo.", "******One.******Two.******"],
        ["One.", "One.\n******\nOne.", "a ****** b ****** c", "a ****** ****** b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": REQUEST},
        [f"{REQUEST}\nRain falls", f"  {REQUEST.upper()} Rain"],
        ["Rain falls", f"Sure! {REQUEST}"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "So what is next?"},
        ["We are done. So what is next?", 'Done. so what is next?"\n'],
        ["So what is next? Nothing.", "Done."],
    ),
    ("startend:quotation", {}, ['"All of it."', ' "x" '], ['"Half" of it', '"', "'x'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA agree", "I AM here"],
        ["Nasa and ESA", "one Two"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["only NASA here"],
        ["NASA and ESA"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THE RAIN IN SPAIN FALLS MAINLY ON THE PLAIN. 42!"],
        ["THE RAIN IN Spain", "DER REGEN IN SPANIEN FÄLLT VOR ALLEM AUF DAS FLACHE LAND"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the rain in spain falls mainly on the plain. 42!"],
        ["The rain", "der regen in spanien fällt vor allem auf das flache land"],
    ),
    ("punctuation:no_comma", {}, ["one; two"], ["one, two"]),
]


def test_all_twenty_five_kinds_have_cases():
    assert len(KINDS) == 25
    assert {kind for kind, *_ in CASES} == set(KINDS)


@pytest.mark.parametrize(("kind", "values", "following", "failing"), CASES)
def test_a_kind_tells_texts_that_follow_it_from_texts_that_do_not(kind, values, following, failing):
    assert problem_with(kind, values) is None
    assert [text for text in following if not KINDS[kind].follows(text, **values)] == []
    assert [text for text in failing if KINDS[kind].follows(text, **values)] == []


# Real sentences of each language that the benchmark asks for, written by hand.
SENTENCES = {
    "ar": "الطقس جميل اليوم وأريد أن أذهب إلى الحديقة",
    "bg": "Времето днес е хубаво и искам да отида в парка",
    "bn": "আজ আবহাওয়া সুন্দর এবং আমি পার্কে যেতে চাই",
    "de": "Das Wetter ist heute schön und ich möchte in den Park gehen",
    "en": "The weather is fine today and I want to go to the park",
    "fa": "امروز هوا خوب است و می‌خواهم به پارک بروم",
    "fi": "Sää on tänään kaunis ja haluan mennä puistoon",
    "gu": "આજે હવામાન સરસ છે અને હું બગીચામાં જવા માંગુ છું",
    "hi": "आज मौसम अच्छा है और मैं बगीचे में जाना चाहता हूँ",
    "it": "Oggi il tempo è bello e voglio andare al parco",
    "kn": "ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ನಾನು ಉದ್ಯಾನವನಕ್ಕೆ ಹೋಗಲು ಬಯಸುತ್ತೇನೆ",
    "ko": "오늘은 날씨가 좋아서 공원에 가고 싶습니다",
    "mr": "आज हवामान छान आहे आणि मला बागेत जायचे आहे",
    "ne": "आज मौसम राम्रो छ र म पार्कमा जान चाहन्छु",
    "pa": "ਅੱਜ ਮੌਸਮ ਵਧੀਆ ਹੈ ਅਤੇ ਮੈਂ ਪਾਰਕ ਜਾਣਾ ਚਾਹੁੰਦਾ ਹਾਂ",
    "pt": "Hoje o tempo está bom e eu quero ir ao parque",
    "ru": "Сегодня хорошая погода, и я хочу пойти в парк",
    "sw": "Leo hali ya hewa ni nzuri na ninataka kwenda bustanini",
    "ta": "இன்று வானிலை நன்றாக உள்ளது, நான் பூங்காவிற்குச் செல்ல விரும்புகிறேன்",
    "te": "ఈరోజు వాతావరణం బాగుంది మరియు నేను పార్కుకు వెళ్లాలనుకుంటున్నాను",
    "th": "วันนี้อากาศดีและฉันอยากไปสวนสาธารณะ",
    "ur": "آج موسم اچھا ہے اور میں پارک جانا چاہتا ہوں",
    "vi": "Hôm nay thời tiết đẹp và tôi muốn đi công viên",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_found_to_be_in_its_language(language):
    assert language in LANGUAGES
    assert detect_language(SENTENCES[language]) == language


def test_text_without_letters_is_in_no_language():
    assert detect_language("42! ...") is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is 3.14. Next.", 2),
        ("Mr. J. Smith came at 5 p.m. on Monday.", 1),
        ("1. Wash it.\n2. Dry it.", 2),
        ("Wait... what? Yes!", 2),
        ('He said "Go!" Then he left.', 2),
        ("No end", 1),
        ("", 0),
        ("今天下雨。我在家！", 2),
    ],
)
def test_sentences_are_counted_as_a_reader_would(text, count):
    assert count_sentences(text) == count


def test_words_and_capital_words_are_counted_as_documented():
    assert count_words("don't stop-now 42") == 5
    assert count_capital_words("I saw NASA's 3D WELL-KNOWN USA 42 Mr X") == 5  # not NASA's: it has a small s


@pytest.mark.parametrize(
    "flood", ["[", "<<", "*", ".", "1. ", "mr. ", "\n", '"', "p.p.", "- ", "{", "e.g. ", "a."]
)
def test_a_flood_takes_linear_time(flood):
    text = (flood * 200_000)[:200_000]
    begin = time.process_time()
    for kind, values, *_ in CASES:
        KINDS[kind].follows(text, **values)
    assert time.process_time() - begin < 20  # quadratic would be an hour


@pytest.mark.parametrize(
    ("kind", "values", "part"),
    [
        ("startend:nothing", {}, "none of the 25 kinds"),
        ("startend:end_checker", {}, "needs end_phrase as str"),
        ("keywords:existence", {"keywords": [1]}, "no text"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "about"},
            "'at least' or 'less than'",
        ),
    ],
)
def test_an_instruction_that_cannot_be_judged_says_why(kind, values, part):
    assert part in problem_with(kind, values)
