"""How report.html looks: by day and by night, on a phone and on a wide screen, on paper.

Only text: a style sheet whose colours are those that drawings may use, given once for light and
once for dark. No font, picture or script is asked for from anywhere.
"""

from __future__ import annotations

from .svg import PALETTE, rules

#: the palette by night: lighter strokes on a dark ground
_NIGHT = {
    "ink": "#e6edf3", "quiet": "#9aa5b1", "grid": "#30363d", "paper": "#161b22",
    "c0": "#58a6ff", "c1": "#f0883e", "c2": "#3fb968", "c3": "#c58af9", "c4": "#d9b24c",
    "c5": "#ff7b88", "c6": "#39c5cf", "c7": "#8b949e",
}  # fmt: skip
_DAY = {**PALETTE, "paper": "#ffffff"}

_SHEET = """
:root{color-scheme:light dark;--ground:#f5f6f8;--good:#128a4a;--bad:#c4314b;DAY}
@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--good:#3fb968;--bad:#ff7b88;NIGHT}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.2rem;margin:40px 0 12px}
h3{font-size:1rem;margin:0 0 8px}
p{margin:0 0 10px;max-width:75ch}
.quiet{color:var(--quiet)}
.small{font-size:.875rem}
.card{background:var(--paper);border:1px solid var(--grid);border-radius:10px;padding:16px;
 min-width:0}
.verdict{border-left:5px solid var(--good);margin:20px 0}
.verdict.unsure{border-left-color:var(--c4)}
.verdict.bad{border-left-color:var(--bad)}
.verdict p{font-size:1.1rem;margin:0 0 6px}
.verdict p:last-child{margin:0}
.badge{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:0 10px;
 font-size:.8rem;font-weight:600;color:var(--c1);vertical-align:middle}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0}
.tiles .card{padding:12px 16px}
.tiles dt{color:var(--quiet);font-size:.875rem}
.tiles dd{margin:0}
.tiles .figure{font-size:1.5rem;font-weight:650;line-height:1.3}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px;
 align-items:start}
figure{margin:0;container-type:inline-size}
figcaption{color:var(--quiet);font-size:.875rem;margin-top:8px}
.plot{display:block;width:100%;height:auto;font-family:system-ui,-apple-system,"Segoe UI",Roboto,
 "Helvetica Neue",sans-serif;stroke-linejoin:round;stroke-linecap:butt}
.narrow{display:none}
@container (max-width:460px){.wide{display:none}.narrow{display:block}}
.scroll{overflow-x:auto;border:1px solid var(--grid);border-radius:10px;background:var(--paper)}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-top:1px solid var(--grid);
 vertical-align:top}
thead th{border-top:0;color:var(--quiet);font-weight:600;vertical-align:bottom}
thead small{display:block;font-weight:400}
th:first-child,td:first-child{text-align:left}
tbody th{font-weight:600;position:sticky;left:0;background:var(--paper)}
td.text,th.text{text-align:left}
.few{color:var(--quiet)}
details{margin:0 0 12px}
summary{cursor:pointer;font-weight:600;padding:4px 0}
summary .quiet{font-weight:400}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:16px;
 margin:12px 0 16px;align-items:start}
dl.plain{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1.4fr);gap:4px 16px;margin:0;
 font-size:.875rem}
dl.plain dt{color:var(--quiet)}
dl.plain dd{margin:0}
dl.words{font-size:.9rem;margin:0;columns:2 380px;column-gap:40px}
dl.words dt{font-weight:600;break-after:avoid}
dl.words dd{margin:0 0 8px;color:var(--quiet);break-inside:avoid}
@media (max-width:480px){main{padding:20px 12px 40px}.card{padding:12px}h1{font-size:1.4rem}
 .tiles{grid-template-columns:1fr 1fr}.tiles .figure{font-size:1.2rem}}
@media print{body{background:#fff}.card,.scroll{break-inside:avoid}}
"""


def sheet() -> str:
    """Return the style sheet of report.html."""
    text = _SHEET.replace("DAY", _variables(_DAY)).replace("NIGHT", _variables(_NIGHT))
    return text + rules({name: f"var(--{name})" for name in PALETTE}) + "\n"


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in colours.items())
