"""Texts that would execute, draw or break something in a page or terminal that trusts them."""

from __future__ import annotations

CORPUS = (
    "<script>window.owned = 1</script>",
    "</title><script>window.owned = 2</script>",
    "</style><script>window.owned = 3</script>",
    '"><img src=x onerror="window.owned = 4">',
    "' onmouseover='window.owned = 5",
    "</svg><svg onload=window.owned=6>",
    "]]><script>window.owned = 7</script><![CDATA[",
    "--><script>window.owned = 8</script><!--",
    "<iframe src=javascript:window.top.owned=9></iframe>",
    "<a href='javascript:window.owned=10'>press</a>",
    "<style>*{display:none!important}</style>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "<base href=https://example.invalid/>",
    "url(https://example.invalid/x.png)",
    "&lt;script&gt;window.owned = 11&lt;/script&gt; &amp; &#60;b&#62;",
    "{body} {0} %s %(x)s ${x} {{ 7 * 7 }}",
    r"$\frac{1}{0}$ $$ \undefined_{",
    "\x00\x08\x1b[2J\x7f\x9b",
    "\ud800 half of a pair",
    "\ufffe\uffff no characters",
    "\u202eesrever\u202c \u2066isolated",
    "line\nfeeds\r\nand\ttabs\u2028too",
    "e" + "\u0301" * 200,
    "𝕱𝖑𝖚𝖝 🦊 漢字 العربية",
    "_hidden",
    "long " * 400,
)

#: sequences that terminals, pagers and bidi renderers act on
ESCAPES = [
    "\x1b[2J", "\x1b[H", "\x1b[31mred\x1b[0m", "\x1b[8mhidden", "\x1b[1;1H", "\x1b[10A", "\x1b[K",
    "\x1b[?1049h", "\x1b[?25l", "\x1b[6n", "\x1b[c", "\x1b[>c", "\x1b[5i", "\x1b[4i", "\x1b[20h",
    "\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07", "\x1b]4;1;?\x07", "\x1b]1337;File=:AA==\x07", "\x1b]777;notify;a;b",
    "\x1bP+q544e\x1b\\", "\x1bPq#0;2;0;0;0\x1b\\", "\x1b_Ga=T;AAAA\x1b\\", "\x1b^pm\x1b\\",
    "\x1bXsos\x1b\\", "\x1bc", "\x1b7\x1b8", "\x1b(0lqk", "\x1b#8", "\x1bM", "\x1bN\x1bO", "\x1b=",
    "\x9b2J", "\x9d0;title\x9c", "\x90q\x9c", "\x9f\x9e\x98", "\x84\x85\x8d\x88",
    "\x00", "\x07\x07\x07", "\x08\x08\x08over", "\x0e\x0f", "\x11\x13", "\x18\x1a", "\x7f\x7f",
    "over\rwritten", "two\nlines", "two\r\nlines", "page\fbreak", "col\tumn", "ver\vtical",
    "\u202eesrever\u202c", "\u202a\u202b\u202d", "\u2066\u2067\u2068\u2069", "\u200e\u200f\u061c",
    "line\u2028separator", "paragraph\u2029separator", "\ufeffbom", "soft\u00adhyphen",
    "zero\u200bwidth", "\U000e0001\U000e0041", "\ufff9ruby\ufffa\ufffb", "half \ud83d pair",
    "\ue000\U000f0000", "\u2060\u2061\u2064", "\u206a\u206f",
]  # fmt: skip
