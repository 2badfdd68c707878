"""How a report looks, on a screen and on paper. Text stands out from its ground by 4.5 to 1."""

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:#1b2430;
background:#fff;max-width:62rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:.1rem 0 .4rem}
h2{font-size:1.3rem;margin:2.6rem 0 .8rem;padding-top:.8rem;border-top:2px solid #1b2430}
h3{font-size:1.02rem;margin:1.2rem 0 .3rem}
p{margin:.4rem 0}ul{margin:.3rem 0;padding-left:1.2rem}li{margin:.2rem 0}
a{color:#0a5c9e}a:focus-visible{outline:3px solid #0a5c9e;outline-offset:2px}
code{font-size:.9em}
.kind{text-transform:uppercase;letter-spacing:.06em;font-size:.8rem;color:#4d5763;margin:0}
.small{font-size:.88rem;color:#4d5763}
.warning{background:#fff3d6;border-left:.35rem solid #b84a00;padding:.4rem .8rem;font-weight:600}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;padding:.6rem 0;
border-bottom:1px solid #d5dbe3;font-size:.92rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(25rem,1fr));gap:1rem}
article{border:1px solid #d5dbe3;border-top:.3rem solid #0a5c9e;border-radius:.3rem;
padding:.7rem 1rem}
article h3{margin:.1rem 0}article ul{font-size:.93rem}
figure{margin:1.4rem 0 2rem}
svg{max-width:100%;height:auto;display:block}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif!important}
figcaption{font-size:.92rem;color:#333e4c;max-width:50rem;margin-top:.4rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;margin:.8rem 0 1.6rem;min-width:50%}
caption{text-align:left;font-weight:600;padding:.2rem 0}
th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid #dfe4ea;
vertical-align:top}
th[scope=row]{font-weight:500}
td{font-variant-numeric:tabular-nums}
table:not(.words) td,table:not(.words) th[scope=col]:not(:first-child){text-align:right}
td.shown{color:#00634f;font-weight:600}td.failed{color:#a02a12;font-weight:600}
td.open{color:#6b4a00;font-weight:600}td.unknown{color:#5b6470;font-style:italic}
@media (max-width:40rem){.cards{grid-template-columns:1fr}}
@media print{
@page{margin:14mm}
body{font-size:10pt;max-width:none;padding:0}
nav,figcaption a{display:none}
.cards{grid-template-columns:1fr 1fr}
figure,article,tr{break-inside:avoid}h2,h3,caption{break-after:avoid}
svg{max-height:8.5cm;width:auto}
.scroll{overflow:visible}
}
"""
