//! Colours by meaning. A state is never told by its colour alone: glyph and word say the same.
//!
//! `auto` uses the terminal's own sixteen colours, so it follows a light or a dark terminal; `light` and `dark` use
//! the 256-colour palette; `deuteranopia` replaces green and red by blue and orange; `mono` uses none.

use crate::model::{CheckState, LinkState, Severity};
use ratatui::style::{Color, Modifier, Style};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ThemeName {
    #[default]
    Auto,
    Light,
    Dark,
    Mono,
    Deuteranopia,
}

impl ThemeName {
    pub const ALL: [ThemeName; 5] =
        [ThemeName::Auto, ThemeName::Light, ThemeName::Dark, ThemeName::Mono, ThemeName::Deuteranopia];

    pub fn as_str(self) -> &'static str {
        match self {
            ThemeName::Auto => "auto",
            ThemeName::Light => "light",
            ThemeName::Dark => "dark",
            ThemeName::Mono => "mono",
            ThemeName::Deuteranopia => "deuteranopia",
        }
    }

    pub fn parse(text: &str) -> Option<ThemeName> {
        ThemeName::ALL.into_iter().find(|t| t.as_str() == text)
    }

    pub fn next(self) -> ThemeName {
        let at = ThemeName::ALL.iter().position(|t| *t == self).unwrap_or(0);
        ThemeName::ALL[(at + 1) % ThemeName::ALL.len()]
    }
}

/// What a text means to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Dim,
    Good,
    Busy,
    Warn,
    Bad,
}

/// The styles of one theme.
#[derive(Debug, Clone)]
pub struct Theme {
    pub name: ThemeName,
    pub text: Style,
    /// Labels, units, what is there but not looked for.
    pub dim: Style,
    /// Rules and frames.
    pub faint: Style,
    pub strong: Style,
    /// The product's name, the focused thing, keys in the footer.
    pub accent: Style,
    pub good: Style,
    pub busy: Style,
    pub warn: Style,
    pub bad: Style,
    /// The row or button that a key would act on.
    pub selected: Style,
    /// The text inside a field.
    pub field: Style,
    pub field_focused: Style,
    /// The two charts of a link.
    pub chart_lag: Style,
    pub chart_rate: Style,
}

impl Theme {
    pub fn new(name: ThemeName) -> Theme {
        match name {
            ThemeName::Auto => Theme::ansi(),
            ThemeName::Dark => Theme::indexed(name, [252, 245, 239, 255, 80, 114, 117, 215, 210, 236, 251, 238]),
            ThemeName::Light => Theme::indexed(name, [236, 242, 250, 232, 30, 28, 26, 130, 160, 254, 236, 253]),
            ThemeName::Deuteranopia => Theme::indexed(name, [252, 245, 239, 255, 80, 75, 117, 220, 208, 236, 251, 238]),
            ThemeName::Mono => Theme::mono(),
        }
    }

    fn ansi() -> Theme {
        let fg = |c| Style::new().fg(c);
        Theme {
            name: ThemeName::Auto,
            text: Style::new(),
            dim: fg(Color::DarkGray),
            faint: fg(Color::DarkGray),
            strong: Style::new().add_modifier(Modifier::BOLD),
            accent: fg(Color::Cyan).add_modifier(Modifier::BOLD),
            good: fg(Color::Green),
            busy: fg(Color::Blue),
            warn: fg(Color::Yellow),
            bad: fg(Color::Red),
            selected: Style::new().add_modifier(Modifier::BOLD),
            field: Style::new(),
            field_focused: Style::new().add_modifier(Modifier::BOLD),
            chart_lag: fg(Color::Blue),
            chart_rate: fg(Color::Cyan),
        }
    }

    /// Out of twelve entries of the 256-colour palette: text, dim, faint, strong, accent, good, busy, warn, bad,
    /// background of the selection, text of a field, background of a focused field.
    fn indexed(name: ThemeName, c: [u8; 12]) -> Theme {
        let fg = |i: usize| Style::new().fg(Color::Indexed(c[i]));
        Theme {
            name,
            text: fg(0),
            dim: fg(1),
            faint: fg(2),
            strong: fg(3).add_modifier(Modifier::BOLD),
            accent: fg(4).add_modifier(Modifier::BOLD),
            good: fg(5),
            busy: fg(6),
            warn: fg(7),
            bad: fg(8),
            selected: Style::new().bg(Color::Indexed(c[9])).add_modifier(Modifier::BOLD),
            field: fg(10),
            field_focused: fg(3).bg(Color::Indexed(c[11])),
            chart_lag: fg(6),
            chart_rate: fg(4),
        }
    }

    fn mono() -> Theme {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let dim = plain.add_modifier(Modifier::DIM);
        Theme {
            name: ThemeName::Mono,
            text: plain,
            dim,
            faint: dim,
            strong: bold,
            accent: bold,
            good: plain,
            busy: plain,
            warn: bold,
            bad: bold.add_modifier(Modifier::UNDERLINED),
            selected: bold,
            field: plain,
            field_focused: plain.add_modifier(Modifier::REVERSED),
            chart_lag: plain,
            chart_rate: plain,
        }
    }

    pub fn tone(&self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => self.text,
            Tone::Dim => self.dim,
            Tone::Good => self.good,
            Tone::Busy => self.busy,
            Tone::Warn => self.warn,
            Tone::Bad => self.bad,
        }
    }
}

/// Glyph and tone of a link's or a job's state.
pub fn link_mark(state: LinkState) -> (&'static str, Tone) {
    match state {
        LinkState::NotConfigured => ("○", Tone::Dim),
        LinkState::Prechecking => ("◌", Tone::Busy),
        LinkState::PrecheckFailed => ("✖", Tone::Bad),
        LinkState::Initializing => ("◐", Tone::Busy),
        LinkState::CatchingUp => ("◑", Tone::Busy),
        LinkState::Synchronizing => ("●", Tone::Good),
        LinkState::Lagging => ("▲", Tone::Warn),
        LinkState::Reconnecting => ("↻", Tone::Warn),
        LinkState::Paused => ("‖", Tone::Warn),
        LinkState::Failed => ("✖", Tone::Bad),
        LinkState::Ended => ("■", Tone::Dim),
    }
}

/// Glyph and tone of a precheck item.
pub fn check_mark(state: CheckState) -> (&'static str, Tone) {
    match state {
        CheckState::Pending => ("·", Tone::Dim),
        CheckState::Running => ("◌", Tone::Busy),
        CheckState::Passed => ("✔", Tone::Good),
        CheckState::Warning => ("▲", Tone::Warn),
        CheckState::Failed => ("✖", Tone::Bad),
        CheckState::Skipped => ("↷", Tone::Dim),
    }
}

/// Glyph and tone of an event or an alert.
pub fn severity_mark(severity: Severity) -> (&'static str, Tone) {
    match severity {
        Severity::Info => ("·", Tone::Dim),
        Severity::Warning => ("▲", Tone::Warn),
        Severity::Error => ("✖", Tone::Bad),
    }
}

/// The ASCII stand-in of a glyph that the screens use; `None` for a letter of some language.
pub fn ascii(glyph: &str) -> Option<&'static str> {
    Some(match glyph {
        "─" | "╌" | "—" | "–" => "-",
        "━" | "╸" => "=",
        "│" | "┃" | "▌" | "▐" => "|",
        "╭" | "╮" | "╰" | "╯" | "┬" | "┴" | "├" | "┤" | "┼" | "┌" | "┐" | "└" | "┘" => "+",
        "●" | "•" | "◉" => "*",
        "○" | "◌" => "o",
        "◐" | "◑" => "%",
        "✔" => "v",
        "✖" | "×" => "x",
        "▲" | "⚠" => "!",
        "↻" => "~",
        "↷" => ">",
        "‖" => "=",
        "■" | "█" => "#",
        "□" | "░" => ".",
        "▁" => "_",
        "▂" => ".",
        "▃" => "-",
        "▄" => "=",
        "▅" => "+",
        "▆" => "*",
        "▇" => "%",
        "▏" | "▎" | "▍" | "▋" | "▊" | "▉" => "#",
        "→" | "›" | "▸" => ">",
        "←" | "‹" => "<",
        "⇄" => "=",
        "↑" => "^",
        "↓" | "▾" => "v",
        "↵" => "~",
        "…" => ".",
        "·" => "-",
        "“" | "”" => "\"",
        "‘" | "’" => "'",
        "①" => "1",
        "②" => "2",
        "③" => "3",
        "④" => "4",
        "≈" => "~",
        _ => return None,
    })
}
