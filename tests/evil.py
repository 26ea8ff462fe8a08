"""Texts that would run, paint or break something in a page that takes them as they are."""

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
