//! Writes every screen as ANSI text into the folder that `DUPLEX_PICTURES` names; without it, checks that each scene
//! can be drawn. The pictures are for the eye.

mod tui_scenes;

use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier},
};
use redis_duplex::tui::{i18n::Lang, theme::ThemeName};
use std::fmt::Write;
use tui_scenes::{SCENES, draw};
use unicode_width::UnicodeWidthStr;

fn color(c: Color, base: u8) -> String {
    match c {
        Color::Reset => format!("{}", base + 9),
        Color::Indexed(i) => format!("{};5;{i}", base + 8),
        Color::DarkGray => format!("{}", base + 60),
        Color::Red => format!("{}", base + 1),
        Color::Green => format!("{}", base + 2),
        Color::Yellow => format!("{}", base + 3),
        Color::Blue => format!("{}", base + 4),
        Color::Cyan => format!("{}", base + 6),
        other => panic!("a colour that no theme has: {other:?}"),
    }
}

fn ansi(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buf.area.height {
        let mut x = 0;
        while x < buf.area.width {
            let cell = &buf[(x, y)];
            let mut codes = vec!["0".to_owned(), color(cell.fg, 30), color(cell.bg, 40)];
            for (modifier, code) in
                [(Modifier::BOLD, "1"), (Modifier::DIM, "2"), (Modifier::UNDERLINED, "4"), (Modifier::REVERSED, "7")]
            {
                if cell.modifier.contains(modifier) {
                    codes.push(code.into());
                }
            }
            write!(out, "\x1b[{}m{}", codes.join(";"), cell.symbol()).expect("text");
            x += cell.symbol().width().max(1) as u16;
        }
        out.push_str("\x1b[0m\n");
    }
    out
}

#[test]
fn every_scene_can_be_drawn() {
    let folder = std::env::var("DUPLEX_PICTURES").ok();
    let theme = std::env::var("DUPLEX_THEME").ok().and_then(|t| ThemeName::parse(&t)).unwrap_or(ThemeName::Dark);
    for (name, scene) in SCENES {
        for lang in Lang::ALL {
            for (columns, rows) in [(60, 15), (80, 24), (120, 40)] {
                let text = ansi(&draw(&scene(lang, theme), columns, rows));
                assert!(text.lines().count() == rows as usize);
                if let Some(folder) = &folder {
                    let path = format!("{folder}/{name}-{}-{columns}.ansi", if lang == Lang::En { "en" } else { "zh" });
                    std::fs::write(path, text).expect("a picture");
                }
            }
        }
    }
}
