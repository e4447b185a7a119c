"""The texts on which sinkref's tokenizers are compared with the references."""

import random


def plain():
    yield from [
        "",
        " ",
        "  ",
        "   ",
        "a",
        "A",
        "Hello",
        "Hello world",
        " Hello world",
        "Hello  world",
        "Hello world ",
        "Hello world  ",
        "The quick brown fox jumps over " "the lazy dog.",
        "It's we've I'll they'd you're I'm don't CAN'T IT'S WE'LL",
        "O’Neill’s ‘quoted’ “text” — dash – dash…",
        "ſ 'ſ I'ſ",
        "e-mail: a.b+c@example.com",
        "https://example.com/a/b?c=d&e=%20#f",
        "C:\\Users\\me\\file.txt",
        "$3.14 €2,50 £7 ¥8",
        "ALLCAPS lowercase CamelCase snake_case kebab-case",
        "!!!???...;;;",
        "a.b.c.d.e",
        "(a) [b] {c} <d> |e|",
        "1+1=2; 2*3=6; 4/2=2; 5-3=2; 2^8=256",
        "~`!@#$%^&*()_+-=[]{}|",
        "supercalifragilisticexpialidocious",
        "antidisestablishmentarianism's",
        "\u2581",
        "\u2581the",
        "a\u2581b",
        " \u2581 ",
        "\u2581\u2581\u2581",
        "Ġthe",
        "ĊĉĠ",
    ]


def white_space():
    for count in (2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100):
        yield " " * count
        yield "x" + " " * count + "y"
        yield "\n" * count
    yield from [
        "\t",
        "\t\t",
        "\t\t\tx",
        "a\tb",
        "\n",
        "\r",
        "\r\n",
        "\r\n\r\n",
        "a\nb",
        "a\r\nb",
        "a \n b",
        "a\n\n\nb",
        " \n",
        "\n ",
        " \n \n ",
        "\t \t \n\n \tx",
        "a  \n",
        "a\n  b",
        "\u00a0",
        "a\u00a0b",
        "\u00a0\u00a0x",
        "\u2003x",
        "a\u3000b",
        "\u200bx",
        "\u2028x\u2029y",
        "\u0085x",
        "\u180ex",
        "a\u180eb",
        "\ufeffx",
        "\x0b\x0cx",
        "\x1cx\x1fy",
        " \u00a0 \u2003 x",
    ]


def code():
    yield from [
        "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n",
        'int main(void) {\n\tfor (int i = 0; i < 10; ++i) {\n\t\tputs("hi");\n\t}\n}\n',
        "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';",
        '<div class="a">b &amp; c</div>',
        '{"a": [1, 2.5, null, true], "b": {"c": "d"}}',
        "x = y if z else w  # comment",
        "0x1F 0b1010 1e-10 1_000_000 3.14f",
        "a->b::c<d>()[e]",
        "#!/bin/sh\nset -eu\n\nls -la | wc",
        "\\frac{a}{b} + \\sqrt{x^2}",
        "if(a&&b||!c){return;}//x",
        "        deep indent",
    ]


def digits():
    for length in (1, 2, 3, 4, 5, 6, 7, 9, 10, 16, 31):
        yield ("1234567890" * 4)[:length]
        yield "a" + "9" * length + "b"
    yield from [
        "1 2 3",
        "12 34 567",
        " 1",
        "  12",
        "2024-01-31T12:34:56Z",
        "1,234,567.89",
        "٠١٢٣٤٥",
        "१२३",
        "½ ¼ ²³ ⅷ Ⅻ",
        "１２３",
        "v1.2.3-rc4",
        "3rd 4th",
        "㊿ ①②③",
        "𝟏𝟐𝟑",
    ]


def scripts():
    yield from [
        "Ünïcödé ñandú façade œuvre straße",
        "İstanbul ıI ŞşĞğ",
        "Привет, мир! Как дела?",
        "Γειά σου Κόσμε",
        "你好，世界！",
        "今天天气很好，我们去公园吧。",
        "こんにちは世界",
        "カタカナ ﾊﾝｶｸ",
        "안녕하세요 세계",
        "한글",
        "שלום עולם",
        "مرحبا بالعالم",
        "العَرَبِيَّة",
        "नमस्ते दुनिया",
        "สวัสดีชาวโลก",
        "Xin chào thế giới",
        "გამარჯობა",
        "Բարեւ",
        "ሰላም ልዑል",
        "བོད་ཡིག",
        "ខ្មែរ",
        "ᚠᚢᚦ",
        "𐍈𐌰",
        "𠜎𠜱𠝹",
        "𝒳𝓎𝔷",
        "ﷺ",
        "ﬁ ﬂ",
        "ǆ",
        "\u202eabc\u202c",
        "a\u200fb\u200ec",
    ]
    yield from [
        "e\u0301",
        "é",
        "a\u0308\u0323o\u0302",
        "Z̷̛͈a̴͝l̵̕g̶͂o̸",
        "\u0301",
        "x\u0301\u0302\u0303\u0304y",
        "\u1100\u1161\u11a8",
        "क्ष",
        "\u0f71\u0f72",
    ]
    yield from [
        "😀",
        "😀😀😀",
        "a😀b",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "🇫🇷🇩🇪",
        "❤️ ❤",
        "1️⃣",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "🧑🏿‍🚀 to the 🌕",
        "☃",
        "\ufffd",
        "\U0010ffff",
        "\ue000",
        "\uffff",
        "\U000e0001",
        "\U00040000x",
        "\U000c0000",
    ]


def control():
    yield from [
        "\x00",
        "a\x00b",
        "\x01\x02\x03",
        "\x04x\x06y",
        "\x13\x14\x16\x1d",
        "\x7f",
        "a\x1b[31mred",
        "\x80\x9f",
        "".join(map(chr, range(32))),
        "".join(map(chr, range(127, 256))),
    ]


def special():
    yield from [
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "<s>Hello",
        "Hello</s>",
        "a<s>b</s>c<unk>d",
        "<s> x",
        " <s>",
        "<s",
        "s>",
        "<S>",
        "<s>\n",
        "[INST] Hi [/INST]",
        "<<SYS>>\nx\n<</SYS>>",
        "<0x0A>",
        "<0x41>",
        "<|endoftext|>",
        "<|im_start|>user\nHi<|im_end|>\n",
        "<|im_start|",
        "a<|im_end|>b",
        " <|im_end|> ",
        "<|im_start|><|im_start|>",
        "<|im_start|im_end|>",
        "<|begin_of_text|>",
        "<|begin_of_text|>Hello",
        "Hello<|end_of_text|>",
        "<|eot_id|> <|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        "<|reserved_special_token_5|>",
        "<|reserved_special_token_|>",
        "<|python_tag|>",
        "<|end_of_text",
        "|end_of_text|>",
    ]


def repeated():
    for word in (
        " the",
        "the ",
        "the",
        " and",
        " Another",
        "ab",
        "é",
        "好",
        "😀",
        "\n",
        " a",
        "1",
        "- ",
        "aA",
    ):
        for count in (2, 5, 33, 100):
            yield word * count
    yield " the" * 1500
    for length in (20, 100, 1000):
        yield "a" * length
        yield "ab" * length
        yield "abcdefghijklmnopqrstuvwxyz" * (length // 20)
    yield "好" * 500
    yield "=" * 80
    yield "-=" * 40
    yield "." * 300


def mixtures():
    rng = random.Random(20240731)
    atoms = [
        "the",
        "The",
        "ing",
        "un",
        "A",
        "z",
        "Q",
        "é",
        "e\u0301",
        "ß",
        "я",
        "ж",
        "你",
        "の",
        "한",
        "ש",
        "م",
        "ि",
        "😀",
        "\u200d",
        "\ufe0f",
        " ",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\u00a0",
        "\u3000",
        "0",
        "12",
        "345",
        "½",
        ".",
        ",",
        "'",
        "'s",
        "'LL",
        '"',
        "-",
        "—",
        "(",
        ")",
        "<",
        ">",
        "<s>",
        "</s>",
        "<|im_end|>",
        "<|eot_id|>",
        "_",
        "/",
        "\\",
        "\x00",
        "\x07",
        "\u2581",
        "$",
        "€",
    ]
    for _ in range(110):
        yield "".join(rng.choice(atoms) for _ in range(rng.randint(2, 40)))
    ranges = [
        (0x20, 0x7E),
        (0xA0, 0x17F),
        (0x370, 0x52F),
        (0x590, 0x6FF),
        (0x900, 0xDFF),
        (0x2000, 0x2BFF),
        (0x3000, 0x30FF),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
        (0x1F300, 0x1FAFF),
    ]
    for _ in range(60):
        low, high = rng.choice(ranges)
        yield "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 25)))


def strings():
    """All texts, each once, in a fixed order."""
    parts = (plain, white_space, code, digits, scripts, control, special, repeated, mixtures)
    return list(dict.fromkeys(text for part in parts for text in part()))


if __name__ == "__main__":
    print(len(strings()), "strings")
