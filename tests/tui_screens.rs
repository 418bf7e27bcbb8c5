//! Every screen as text, in both languages and three sizes, and its styles in colour and mono; no size and no key
//! breaks the console; a frame is small.

mod tui_scenes;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use insta::assert_snapshot;
use proptest::prelude::*;
use ratatui::{buffer::Buffer, style::Style};
use redis_duplex::{
    control::protocol::Reply,
    model::LinkState,
    tui::{
        app::App,
        i18n::Lang,
        msg::{Msg, Tag},
        terminal::Canvas,
        theme::ThemeName,
        update::update,
    },
};
use std::{collections::BTreeMap, fmt::Write as _, io::Write, sync::Arc, sync::Mutex};
use tui_scenes::*;

const SIZES: [(u16, u16); 3] = [(60, 15), (80, 24), (120, 40)];

/// The text of a scene in all sizes.
fn text(scene: fn(Lang, ThemeName) -> App, lang: Lang) -> String {
    let mut out = String::new();
    for (columns, rows_) in SIZES {
        let app = scene(lang, ThemeName::Dark);
        writeln!(out, "{columns}x{rows_}").expect("text");
        for row in rows(&draw(&app, columns, rows_)) {
            writeln!(out, "|{row}|").expect("text");
        }
    }
    out
}

/// A letter a style, one a cell; the legend tells the styles. A style is counted once a scene.
fn styles(buf: &Buffer) -> String {
    let mut legend: BTreeMap<String, char> = BTreeMap::new();
    let mut grid = String::new();
    for y in 0..buf.area.height {
        let mut row = String::new();
        for x in 0..buf.area.width {
            let cell = &buf[(x, y)];
            let style = Style { underline_color: None, ..cell.style() };
            let name = format!("{:?} {:?} {:?}", style.fg, style.bg, cell.modifier);
            let next = (b'a' + legend.len() as u8) as char;
            row.push(*legend.entry(name).or_insert(next));
        }
        writeln!(grid, "{}", row.trim_end_matches('a')).expect("text");
    }
    let mut out: Vec<String> = legend.into_iter().map(|(style, letter)| format!("{letter} {style}")).collect();
    out.sort();
    format!("{}\n{grid}", out.join("\n"))
}

#[test]
fn screens_read_as_reviewed() {
    for (name, scene) in SCENES {
        for lang in Lang::ALL {
            let tag = if lang == Lang::En { "en" } else { "zh-CN" };
            assert_snapshot!(format!("{name}-{tag}"), text(*scene, lang));
        }
    }
}

#[test]
fn screens_are_styled_as_reviewed() {
    // three screens have all the tones there are; of the others each has its colours, and what is left of them in mono
    for (name, scene) in SCENES {
        let whole = ["jobs", "wizard_4_failed", "dashboard"].contains(name);
        let themes = ThemeName::ALL.into_iter();
        for theme in themes.filter(|t| whole || matches!(t, ThemeName::Dark | ThemeName::Mono)) {
            let buf = draw(&scene(Lang::En, theme), 80, 24);
            assert_snapshot!(format!("{name}-style-{}", theme.as_str()), styles(&buf));
        }
    }
}

#[test]
fn mono_has_no_colour_and_says_the_same() {
    let all = SCENES.iter().flat_map(|s| Lang::ALL.into_iter().flat_map(move |l| SIZES.map(|size| (s, l, size))));
    for ((name, scene), lang, (columns, rows_)) in all {
        let [mono, dark] = [ThemeName::Mono, ThemeName::Dark].map(|t| draw(&scene(lang, t), columns, rows_));
        assert_eq!(rows(&mono), rows(&dark), "{name} in {lang:?} at {columns}x{rows_}");
        for cell in mono.content() {
            let style = cell.style();
            let none = |c: Option<ratatui::style::Color>| c.is_none_or(|c| c == ratatui::style::Color::Reset);
            assert!(none(style.fg) && none(style.bg), "{name} has a colour");
        }
    }
}

#[test]
fn ascii_terminals_get_ascii_only() {
    for (name, scene) in SCENES {
        let mut app = scene(Lang::En, ThemeName::Auto);
        app.ascii = true;
        for row in rows(&draw(&app, 80, 24)) {
            assert!(row.is_ascii(), "{name}: {row}");
        }
    }
}

/// No text of 80x24 is cut at the right edge where there is a way to say it in full.
#[test]
fn footers_and_headers_fit_eighty_columns() {
    for (name, scene) in SCENES {
        for lang in Lang::ALL {
            let rows = rows(&draw(&scene(lang, ThemeName::Dark), 80, 24));
            for row in [&rows[0], &rows[23]] {
                assert!(!row.contains('…'), "{name}: {row}");
            }
        }
    }
}

#[test]
fn a_small_terminal_gets_a_notice() {
    for (columns, rows_) in [(59, 15), (60, 14), (20, 5)] {
        let text = rows(&draw(&list(Lang::En, ThemeName::Dark), columns, rows_)).concat();
        let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("60x15"), "{words}");
        assert!(!words.contains("orders"));
    }
}

#[derive(Clone, Default)]
struct Counting(Arc<Mutex<Vec<u8>>>);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("bytes").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Counting {
    fn taken(&self) -> usize {
        std::mem::take(&mut *self.0.lock().expect("bytes")).len()
    }
}

/// Bytes of a first frame. The promise is 6 KiB; what is left is for longer names than those of the scenes.
const FIRST_FRAME: usize = 4608;

#[test]
fn frames_are_small() {
    let mut most = (0, String::new());
    for (name, scene) in SCENES {
        for lang in Lang::ALL {
            for theme in [ThemeName::Auto, ThemeName::Dark] {
                let out = Counting::default();
                let mut canvas = Canvas::new(out.clone());
                let app = scene(lang, theme);
                canvas.draw(&app, 80, 24).expect("drawn");
                let first = out.taken();
                most = most.max((first, format!("{name} in {lang:?}, {theme:?}")));
                assert!(first <= FIRST_FRAME, "the first frame of {name} takes {first} bytes");
                canvas.draw(&app, 80, 24).expect("drawn");
                assert_eq!(out.taken(), 0, "{name}: nothing changed");
            }
        }
    }
    println!("the longest first frame: {most:?}");
}

#[test]
fn a_running_dashboard_takes_few_bytes_a_frame() {
    let out = Counting::default();
    let mut canvas = Canvas::new(out.clone());
    let mut app = dashboard(Lang::En, ThemeName::Dark);
    canvas.draw(&app, 80, 24).expect("drawn");
    out.taken();
    let mut worst = 0;
    let mut total = 0;
    let mut random = 7u64;
    for second in 1..=120u64 {
        let mut next = |n: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % n
        };
        update(&mut app, Msg::Tick(NOW + second * 1000));
        let mut job = orders();
        for link in &mut job.links {
            link.lag_ms = Some(1 + next(30));
            link.lag_bytes = Some(next(4000));
            link.changes_per_second = Some(500.0 + next(900) as f64);
            link.bytes_per_second = Some(90_000 + next(50_000));
            link.changes_applied += second * 900;
            link.echoes_dropped += second * 900;
        }
        status(&mut app, vec![job]);
        canvas.draw(&app, 80, 24).expect("drawn");
        let bytes = out.taken();
        worst = worst.max(bytes);
        total += bytes;
    }
    assert!(total / 120 <= 500, "{} bytes a frame", total / 120);
    assert!(worst <= 700, "{worst} bytes in one frame");
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let codes = prop_oneof![
        4 => prop::char::range(' ', '~').prop_map(KeyCode::Char),
        1 => prop::sample::select(vec!['同', '步', 'é', '👍', '\u{200d}', '\u{301}']).prop_map(KeyCode::Char),
        4 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Tab, KeyCode::BackTab, KeyCode::Esc, KeyCode::Up, KeyCode::Down, KeyCode::Left,
            KeyCode::Right, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End, KeyCode::Delete,
            KeyCode::Backspace, KeyCode::F(1), KeyCode::F(2),
        ]),
    ];
    (codes, prop_oneof![9 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL)])
        .prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is typed on whatever screen, it can be drawn in whatever size.
    #[test]
    fn no_size_and_no_keys_panic(
        scene in 0..SCENES.len(),
        lang in prop::sample::select(Lang::ALL.to_vec()),
        typed in prop::collection::vec(any_key(), 0..60),
        clicks in prop::collection::vec((0u16..80, 0u16..24), 0..8),
        sizes in prop::collection::vec((1u16..=200, 1u16..=60), 1..6),
    ) {
        let mut app = SCENES[scene].1(lang, ThemeName::Dark);
        for (i, key) in typed.into_iter().enumerate() {
            update(&mut app, Msg::Key(key));
            if i % 7 == 0 {
                draw(&app, 80, 24);
            }
        }
        for (column, row) in clicks {
            let kind = MouseEventKind::Down(MouseButton::Left);
            update(&mut app, Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
        }
        for (columns, rows) in sizes {
            draw(&app, columns, rows);
        }
    }
}

/// What the engine sends can't break a screen: control characters, long texts, missing numbers.
#[test]
fn strange_words_of_the_engine_are_shown_harmlessly() {
    let mut app = app(Lang::En, ThemeName::Dark);
    up(&mut app);
    let mut strange =
        job("a\x1b[31m同步\u{202e}", &"x".repeat(300), "\n\n", [LinkState::Failed, LinkState::Reconnecting]);
    strange.reason = Some("\x1b]0;title\x07 ".repeat(40));
    strange.links[0].lag_ms = None;
    strange.links[0].shards.clear();
    status(&mut app, vec![strange]);
    for keys in ["", "<ret>", "s", "<esc>e", "<esc>k", "<esc><ret>"] {
        press(&mut app, keys);
        for (columns, rows_) in SIZES {
            for row in rows(&draw(&app, columns, rows_)) {
                assert!(!row.contains(|c: char| c.is_control() || c == '\u{202e}'), "{row:?}");
            }
        }
    }
    let effects = update(&mut app, Msg::Reply { tag: Tag::Watch, reply: Box::new(Reply::Done), last: true });
    assert!(effects.is_empty());
}
