"""The style sheet of the report's page: light and dark, for narrow screens and for paper."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root{--back:#fff;--ink:#1d2430;--dim:#596273;--line:#d8dde5;--box:#f4f6f9;--good:#176b36;--warn:#8a5a00;--bad:#b3201b;
--badbox:#fdf0ef}
@media (prefers-color-scheme:dark){:root{--back:#14181f;--ink:#e4e8ef;--dim:#9aa4b5;--line:#323a47;--box:#1d232d;
--good:#5fcf86;--warn:#e5b454;--bad:#ff8a82;--badbox:#2b1b1d}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:62rem;background:var(--back);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1rem;margin:0;color:var(--dim);font-weight:600}
h2{font-size:1.3rem;margin:2.2rem 0 .8rem}
h2 small{color:var(--dim);font-size:1rem;font-weight:400}
p{margin:0 0 .4rem}
.summary{font-size:1.7rem;line-height:1.25;font-weight:650;margin:.2rem 0 .8rem}
.good,.well,.mark.pass{color:var(--good)}
.bad,.mark.fail{color:var(--bad)}
.mark.warn{color:var(--warn)}
details.skipped,.mark.skipped{color:var(--dim)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.4rem 0 0}
dt{color:var(--dim)}
dd{margin:0}
.about{font-size:.9rem}
.cause{border-left:4px solid var(--bad);background:var(--badbox);padding:.8rem 1rem;margin-bottom:1rem}
.cause strong{display:block;color:var(--bad);font-size:.85rem}
pre{margin:.5rem 0;padding:.6rem .8rem;background:var(--box);border:1px solid var(--line);overflow-x:auto;
font:14px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:normal}
.code{color:var(--dim);font-size:.85rem;white-space:nowrap}
.layers{border:1px solid var(--line);border-radius:6px}
details+details{border-top:1px solid var(--line)}
summary{padding:.5rem .9rem;cursor:pointer;display:flex;gap:.7rem;align-items:baseline}
summary:focus-visible{outline:2px solid var(--dim);outline-offset:-2px}
summary b{flex:none;width:11.5rem;font-weight:600}
.seen{flex:1;min-width:0;color:var(--dim);font-size:.9rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
details[open] .seen{visibility:hidden}
.mark{display:inline-block;width:1.1em;font-weight:700;flex:none}
.word{flex:none;color:var(--dim);font-size:.85rem}
ul{list-style:none;margin:0;padding:0 .9rem .6rem 2.7rem}
li+li{margin-top:.7rem}
.check{color:var(--dim);font-size:.85rem;display:flex;flex-wrap:wrap;gap:0 1rem;margin:0}
.facts{font-size:.85rem;border-left:2px solid var(--line);padding-left:.8rem}
@media (max-width:36rem){ul{padding-left:.9rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.3rem}
.summary{font-size:1.4rem}.seen{display:none}summary b{flex:1;width:auto}}
@media print{body{max-width:none;padding:0;font-size:11pt}pre{white-space:pre-wrap;overflow-wrap:anywhere}
section,li,.cause{break-inside:avoid-page}section{break-inside:auto}.seen{white-space:normal}}
"""
