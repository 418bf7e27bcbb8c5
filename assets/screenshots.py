#!/usr/bin/env python3
"""Turns a tmux pane (`tmux capture-pane -e -p`, on standard input) into an SVG picture on standard output.

usage: screenshots.py COLUMNS ROWS TITLE < pane > picture.svg
"""
import re
import sys
import unicodedata
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 8.4, 18
GROUND, TEXT = "#11151c", "#d5dae2"
BASIC = ["#2b303b", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4",
         "#5c6370", "#ff7b86", "#b5e890", "#ffd787", "#82c4ff", "#e29df5", "#7fdce8", "#ffffff"]


def indexed(n):
    if n < 16:
        return BASIC[n]
    if n >= 232:
        return "#%02x%02x%02x" % ((8 + 10 * (n - 232),) * 3)
    n -= 16
    return "#%02x%02x%02x" % tuple(0 if c == 0 else 55 + 40 * c for c in (n // 36, n // 6 % 6, n % 6))


class Style:
    def __init__(self):
        self.fg = self.bg = None
        self.bold = self.dim = self.under = self.swap = False

    def take(self, codes):
        codes = [int(c or 0) for c in re.split("[;:]", codes)]
        while codes:
            c = codes.pop(0)
            if c == 0:
                self.__init__()
            elif c == 1:
                self.bold = True
            elif c == 2:
                self.dim = True
            elif c == 4:
                self.under = True
            elif c == 7:
                self.swap = True
            elif c == 22:
                self.bold = self.dim = False
            elif c == 24:
                self.under = False
            elif c == 27:
                self.swap = False
            elif c in (38, 48):
                kind = codes.pop(0)
                color = indexed(codes.pop(0)) if kind == 5 else "#%02x%02x%02x" % tuple(codes.pop(0) for _ in "rgb")
                setattr(self, "fg" if c == 38 else "bg", color)
            elif c in (39, 49):
                setattr(self, "fg" if c == 39 else "bg", None)
            elif 30 <= c < 38 or 90 <= c < 98:
                self.fg = BASIC[c - 30 if c < 38 else c - 82]
            elif 40 <= c < 48 or 100 <= c < 108:
                self.bg = BASIC[c - 40 if c < 48 else c - 92]

    def seen(self):
        fg, bg = self.fg or TEXT, self.bg
        if self.swap:
            fg, bg = bg or GROUND, self.fg or TEXT
        return fg, bg, self.bold, self.dim, self.under


def columns(char):
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def main():
    wide, high, title = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    width, height = wide * WIDTH + 24, high * HEIGHT + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}"><title>{escape(title)}</title>',
        '<style>text{white-space:pre;font:14px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono","Noto Sans Mono CJK SC",'
        '"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",monospace}</style>',
        f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>',
    ]
    style = Style()
    for row, line in enumerate(sys.stdin.read().split("\n")[:high]):
        x, runs = 0, []
        for part in re.split(r"(\x1b\[[0-9;:]*m)", line):
            if part.startswith("\x1b["):
                style.take(part[2:-1])
                continue
            # one run a style, and apart where a wide character would shift what follows in another font
            # and apart at each gap: not every viewer keeps several blanks
            wide_or_not = r"[\u2e80-\u9fff\uff00-\uffef\u3000-\u303f]+| {2,}|(?:(?! {2})[^\u2e80-\u9fff\uff00-\uffef\u3000-\u303f])+"
            for piece in re.findall(wide_or_not, part):
                cells = sum(map(columns, piece))
                runs.append((x, cells, piece, style.seen()))
                x += cells
        top = 12 + row * HEIGHT
        for x, cells, text, (fg, bg, bold, dim, under) in runs:
            left = 12 + x * WIDTH
            if bg:
                out.append(f'<rect x="{left:.1f}" y="{top}" width="{cells * WIDTH:.1f}" height="{HEIGHT}" fill="{bg}"/>')
            # blanks carry nothing but their ground
            lead = len(text) - len(text.lstrip(" "))
            shown = text.strip(" ")
            if not shown:
                continue
            left += lead * WIDTH
            extra = (' font-weight="bold"' if bold else "") + (' opacity="0.65"' if dim else "")
            extra += ' text-decoration="underline"' if under else ""
            length = sum(map(columns, shown)) * WIDTH
            out.append(
                f'<text x="{left:.1f}" y="{top + 14}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs" '
                f'fill="{fg}"{extra}>{escape(shown)}</text>')
    out.append("</svg>")
    print("\n".join(out))


main()
