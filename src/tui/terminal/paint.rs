//! Writes the cells that changed, in as few bytes as a slow line deserves.
//!
//! ratatui's own writer moves the cursor after every wide character and names both colours at every change, which
//! makes a Chinese screen twice as long. Here the cursor is moved only where the terminal's is not there already, and
//! only what differs of a style is written. Invariant: after [`paint`] the terminal's style is the plain one.

use crossterm::{
    cursor::{MoveTo, MoveToColumn},
    queue,
    style::{Attribute, Print, ResetColor, SetAttribute, SetBackgroundColor, SetForegroundColor},
};
use ratatui::{
    backend::IntoCrossterm,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// So many blank cells are cheaper to write than to jump over.
const SHORT_GAP: u16 = 3;

const ATTRIBUTES: [(Modifier, Attribute); 6] = [
    (Modifier::BOLD, Attribute::Bold),
    (Modifier::DIM, Attribute::Dim),
    (Modifier::ITALIC, Attribute::Italic),
    (Modifier::UNDERLINED, Attribute::Underlined),
    (Modifier::REVERSED, Attribute::Reverse),
    (Modifier::CROSSED_OUT, Attribute::CrossedOut),
];

/// What the terminal writes with now.
#[derive(Clone, Copy, PartialEq)]
struct Pen {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

const PLAIN: Pen = Pen { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() };

/// Writes `changes`, which are cells of `frame` in the order of rows and columns.
pub fn paint(out: &mut impl Write, changes: &[(u16, u16, &Cell)], frame: &Buffer) -> io::Result<()> {
    // where the terminal's cursor is, as far as that is certain
    let mut at: Option<(u16, u16)> = None;
    let mut pen = PLAIN;
    for &(x, y, cell) in changes {
        match at {
            Some(here) if here == (x, y) => {}
            Some((column, row)) if row == y && column < x && x - column <= SHORT_GAP => {
                let gap = (column..x).map(|c| &frame[(frame.area.x + c, frame.area.y + y)]);
                if pen.bg == Color::Reset && !shows_on_blanks(pen.modifier) && gap.clone().all(is_blank) {
                    gap.clone().try_for_each(|_| out.write_all(b" "))?;
                } else {
                    queue!(out, MoveToColumn(x))?;
                }
            }
            Some((_, row)) if row == y => queue!(out, MoveToColumn(x))?,
            _ => queue!(out, MoveTo(x, y))?,
        }
        let next = Pen { fg: cell.fg, bg: cell.bg, modifier: cell.modifier };
        // the ink of a blank is not seen
        let next = if cell.symbol() == " " && !shows_on_blanks(next.modifier) && !shows_on_blanks(pen.modifier) {
            Pen { bg: next.bg, ..pen }
        } else {
            next
        };
        change(out, pen, next)?;
        pen = next;
        queue!(out, Print(cell.symbol()))?;
        let width = cell.symbol().width().max(1) as u16;
        // terminals differ on how wide some glyphs are; on ideographs they agree
        at = (width == 1 || cell.symbol().chars().all(is_ideograph)).then_some((x + width, y));
    }
    if pen != PLAIN {
        queue!(out, ResetColor, SetAttribute(Attribute::Reset))?;
    }
    Ok(())
}

fn change(out: &mut impl Write, mut pen: Pen, next: Pen) -> io::Result<()> {
    if !next.modifier.contains(pen.modifier) {
        // not every terminal knows how to take a single attribute back
        queue!(out, SetAttribute(Attribute::Reset))?;
        pen = PLAIN;
    }
    for (modifier, attribute) in ATTRIBUTES {
        if next.modifier.contains(modifier) && !pen.modifier.contains(modifier) {
            queue!(out, SetAttribute(attribute))?;
        }
    }
    if next.fg != pen.fg {
        queue!(out, SetForegroundColor(next.fg.into_crossterm()))?;
    }
    if next.bg != pen.bg {
        queue!(out, SetBackgroundColor(next.bg.into_crossterm()))?;
    }
    Ok(())
}

fn shows_on_blanks(modifier: Modifier) -> bool {
    modifier.intersects(Modifier::UNDERLINED | Modifier::REVERSED | Modifier::CROSSED_OUT)
}

fn is_blank(cell: &Cell) -> bool {
    cell.symbol() == " " && cell.bg == Color::Reset && !shows_on_blanks(cell.modifier)
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{303f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ff60}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{layout::Rect, style::Style};

    fn written(before: &Buffer, after: &Buffer) -> Vec<u8> {
        let mut out = Vec::new();
        paint(&mut out, &before.diff(after), after).expect("written");
        out
    }

    fn area() -> Rect {
        Rect::new(0, 0, 20, 3)
    }

    /// What a terminal shows after it has got the bytes of each frame.
    fn shown(frames: &[&Buffer]) -> vt100::Parser {
        let size = |n| std::num::NonZeroU16::new(n).expect("not zero");
        let mut terminal = vt100::Parser::new(size(3), size(20), 0);
        let mut before = Buffer::empty(area());
        for frame in frames {
            terminal.process(&written(&before, frame));
            before = (*frame).clone();
        }
        terminal
    }

    #[test]
    fn wide_characters_need_no_jumps() {
        let mut after = Buffer::empty(area());
        after.set_string(0, 0, "同步作业列表", Style::new());
        let bytes = written(&Buffer::empty(area()), &after);
        assert_eq!(String::from_utf8_lossy(&bytes), "\x1b[1;1H同步作业列表");
    }

    #[test]
    fn every_frame_is_on_the_screen_as_it_was_drawn() {
        let (red, bold) = (Style::new().fg(Color::Red), Style::new().add_modifier(Modifier::BOLD));
        let mut frames = vec![Buffer::empty(area())];
        for (x, y, text, style) in [
            (0, 0, "a b   c 同步 d", red),
            (2, 0, "同", bold.bg(Color::Blue)),
            (5, 1, "👍🏽x", Style::new()),
            (0, 2, "──  ──", red.add_modifier(Modifier::UNDERLINED)),
            (0, 0, "                ", Style::new()),
            (1, 2, "  ", Style::new().bg(Color::Green)),
        ] {
            let mut frame = frames.last().expect("one").clone();
            frame.set_string(x, y, text, style);
            frames.push(frame);
        }
        for n in 1..frames.len() {
            let terminal = shown(&frames[..=n].iter().collect::<Vec<_>>());
            let once = shown(&[&frames[n]]);
            assert_eq!(terminal.screen().contents(), once.screen().contents(), "frame {n}");
            for y in 0..3 {
                for x in 0..20 {
                    let (cell, drawn) = (terminal.screen().cell(y, x).expect("a cell"), &frames[n][(x, y)]);
                    let has = |c: vt100::Color| c != vt100::Color::Default;
                    assert_eq!(has(cell.bgcolor()), drawn.bg != Color::Reset, "background in frame {n} at {x} {y}");
                    if drawn.symbol() != " " {
                        assert_eq!(cell.bold(), drawn.modifier.contains(Modifier::BOLD), "bold in {n} at {x} {y}");
                        assert_eq!(has(cell.fgcolor()), drawn.fg != Color::Reset, "colour in frame {n} at {x} {y}");
                    }
                }
            }
        }
    }
}
