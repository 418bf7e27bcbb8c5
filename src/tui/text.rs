//! Text as a terminal shows it: cut, padded and wrapped by display width; numbers, times and sizes in few characters.
//!
//! Nothing here counts bytes or `char`s as columns. What comes from outside (keys, addresses, error texts) goes
//! through [`clean`] before it is laid out, so that no control character reaches the terminal.

use ratatui::{
    style::Style,
    text::{Line, Span},
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// `text` without control characters; each becomes a middle dot, line ends a space.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '·',
            // bidirectional overrides would reorder the rest of the row
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '·',
            c => c,
        })
        .collect()
}

/// At most `columns` columns of `text`; what is cut away leaves an ellipsis.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let mut out = String::new();
    let mut used = 0;
    for g in text.graphemes(true) {
        let w = width(g);
        if used + w > columns - 1 {
            break;
        }
        out.push_str(g);
        used += w;
    }
    out.push('…');
    out
}

/// `text` in at most `columns` columns; of an address its port stays.
pub fn cut_address(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let port = text.rfind(':').map(|at| &text[at..]).filter(|port| width(port) + 4 <= columns).unwrap_or_default();
    format!("{}{port}", cut(&text[..text.len() - port.len()], columns - width(port)))
}

/// `from → to` in at most `columns` columns, each with as much room as the other.
pub fn ends(from: &str, to: &str, columns: usize) -> String {
    let (from, to) = (clean(from), clean(to));
    let room = columns.saturating_sub(3);
    let half = room / 2;
    let left = half.max(room.saturating_sub(width(&to)));
    let from = cut_address(&from, left);
    let to = cut_address(&to, room.saturating_sub(width(&from)));
    cut(&format!("{from} → {to}"), columns)
}

/// Exactly `columns` columns: cut or padded at the end.
pub fn pad(text: &str, columns: usize) -> String {
    let mut out = cut(text, columns);
    let w = width(&out);
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(w)));
    out
}

/// Exactly `columns` columns: cut at the end, padded at the start.
pub fn pad_left(text: &str, columns: usize) -> String {
    let out = cut(text, columns);
    let mut padded = " ".repeat(columns.saturating_sub(width(&out)));
    padded.push_str(&out);
    padded
}

/// The last `columns` columns of `text`, and how many columns were left out before them: what a field shows whose
/// text is longer than itself.
pub fn tail(text: &str, columns: usize) -> (String, usize) {
    let total = width(text);
    let mut skip = total.saturating_sub(columns);
    if skip == 0 {
        return (text.to_owned(), 0);
    }
    let mut skipped = 0;
    let mut out = String::new();
    for g in text.graphemes(true) {
        if skipped < skip {
            skipped += width(g);
            skip = skip.max(skipped);
        } else {
            out.push_str(g);
        }
    }
    (out, skipped)
}

/// `text` in rows of at most `columns` columns, broken at spaces and, where a word is too long or wide characters
/// stand, between graphemes.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut rows = Vec::new();
    let mut row = String::new();
    let mut used = 0;
    for word in text.split_word_bounds() {
        let w = width(word);
        let space = word.chars().all(char::is_whitespace);
        if used + w > columns && used > 0 {
            // closing punctuation never begins a row
            let closing = w <= 2 && word.chars().all(|c| ",.;:!?)，。；：！？）、」”".contains(c));
            if closing {
                let last = row.split_word_bounds().next_back().map(str::to_owned).unwrap_or_default();
                if !last.is_empty() && width(&last) < used {
                    row.truncate(row.len() - last.len());
                    rows.push(std::mem::take(&mut row).trim_end().to_owned());
                    used = width(&last);
                    row = last;
                }
            } else {
                // nor does an opening one end it
                let opening = row.chars().next_back().filter(|c| "\"'`([“（「".contains(*c));
                // a straight quote may be a closing one
                let opening = opening
                    .filter(|c| "([（「“".contains(*c) || row[..row.len() - c.len_utf8()].ends_with([' ', '：', '，']));
                if let Some(c) = opening {
                    row.truncate(row.len() - c.len_utf8());
                }
                rows.push(std::mem::take(&mut row).trim_end().to_owned());
                row.extend(opening);
                used = width(&row);
            }
        }
        if space && used == 0 && !rows.is_empty() {
            continue;
        }
        if w > columns {
            for g in word.graphemes(true) {
                let gw = width(g);
                if used + gw > columns {
                    rows.push(std::mem::take(&mut row));
                    used = 0;
                }
                row.push_str(g);
                used += gw;
            }
        } else {
            row.push_str(word);
            used += w;
        }
    }
    if !row.trim_end().is_empty() || rows.is_empty() {
        rows.push(row.trim_end().to_owned());
    }
    rows
}

/// `1,204,118`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number in at most five columns: `812`, `2.1k`, `31M`.
pub fn short(n: f64) -> String {
    let n = n.max(0.0);
    let (value, unit) = match n {
        n if n < 999.5 => return if n < 9.95 && n.fract() >= 0.05 { format!("{n:.1}") } else { format!("{n:.0}") },
        n if n < 999_500.0 => (n / 1e3, "k"),
        n if n < 999_500_000.0 => (n / 1e6, "M"),
        n => (n / 1e9, "G"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// Bytes in binary units: `96 KB`, `1.5 MB`.
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    let (value, unit) = match n {
        n if n < 1024.0 => return format!("{n:.0} B"),
        n if n < 1024.0 * 1023.95 => (n / 1024.0, "KB"),
        n if n < 1024.0 * 1024.0 * 1023.95 => (n / 1024.0 / 1024.0, "MB"),
        n if n < 1024f64.powi(3) * 1023.95 => (n / 1024f64.powi(3), "GB"),
        n => (n / 1024f64.powi(4), "TB"),
    };
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A short time in milliseconds: `3 ms`, `1.2 s`, `2m10`, `1h04`.
pub fn millis(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=9_949 => format!("{:.1} s", ms as f64 / 1e3),
        9_950..=59_499 => format!("{:.0} s", ms as f64 / 1e3),
        _ => seconds((ms + 500) / 1000),
    }
}

/// A time in seconds: `9 s`, `9 min`, `2m10`, `1h04`, `2d 04:11`.
pub fn seconds(s: u64) -> String {
    match s {
        0..=59 => format!("{s} s"),
        60..=3_599 if s.is_multiple_of(60) => format!("{} min", s / 60),
        60..=3_599 => format!("{}m{:02}", s / 60, s % 60),
        3_600..=86_399 if s.is_multiple_of(3_600) => format!("{} h", s / 3600),
        3_600..=86_399 => format!("{}h{:02}", s / 3600, s / 60 % 60),
        _ => format!("{}d {:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

/// A round trip in microseconds: `0.4 ms`, `31 ms`.
pub fn micros(us: u64) -> String {
    if us < 50 {
        "<0.1 ms".into()
    } else if us < 9_950 {
        format!("{:.1} ms", us as f64 / 1e3)
    } else {
        millis(us / 1000)
    }
}

/// Columns of a line.
pub fn line_width(line: &Line<'_>) -> usize {
    line.spans.iter().map(|s| width(&s.content)).sum()
}

/// `line` in exactly `columns` columns.
pub fn fit(line: Line<'static>, columns: usize) -> Line<'static> {
    let total = line_width(&line);
    if total == columns {
        return line;
    }
    if total < columns {
        let mut line = line;
        line.spans.push(Span::raw(" ".repeat(columns - total)));
        return line;
    }
    let mut out = Line::default().style(line.style);
    let mut left = columns;
    for span in line.spans {
        let w = width(&span.content);
        if w < left {
            left -= w;
            out.spans.push(span);
        } else {
            // the cut-off mark belongs to the span in which the line ends
            let text =
                if w == left { format!("{}…", cut_plain(&span.content, left - 1)) } else { cut(&span.content, left) };
            out.spans.push(Span::styled(pad(&text, left), span.style));
            break;
        }
    }
    out
}

fn cut_plain(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for g in text.graphemes(true) {
        used += width(g);
        if used > columns {
            break;
        }
        out.push_str(g);
    }
    out
}

/// `line` in exactly `columns` columns over the background of the selected row.
pub fn selected(line: Line<'static>, columns: usize, style: Style) -> Line<'static> {
    let background = Style { bg: style.bg, ..Style::new() };
    let mut line = fit(line, columns);
    for span in &mut line.spans {
        span.style = span.style.patch(background);
    }
    line
}

/// Two columns of lines side by side: the left one `columns` wide, then `gap`, then the right one.
pub fn beside(
    left: Vec<Line<'static>>,
    columns: usize,
    gap: Span<'static>,
    right: Vec<Line<'static>>,
) -> Vec<Line<'static>> {
    let rows = left.len().max(right.len());
    let mut left = left.into_iter();
    let mut right = right.into_iter();
    (0..rows)
        .map(|_| {
            let mut line = fit(left.next().unwrap_or_default(), columns);
            line.spans.push(gap.clone());
            line.spans.extend(right.next().unwrap_or_default().spans);
            line
        })
        .collect()
}

/// Builds one line out of cells with a width of their own.
#[derive(Debug, Default, Clone)]
pub struct Row {
    spans: Vec<Span<'static>>,
}

impl Row {
    pub fn new() -> Self {
        Row::default()
    }

    /// `text` as it is.
    pub fn text(mut self, text: impl Into<String>, style: Style) -> Self {
        self.spans.push(Span::styled(text.into(), style));
        self
    }

    /// `text` in exactly `columns` columns, at the left.
    pub fn cell(self, text: &str, columns: usize, style: Style) -> Self {
        self.text(pad(text, columns), style)
    }

    /// `text` in exactly `columns` columns, at the right.
    pub fn right(self, text: &str, columns: usize, style: Style) -> Self {
        self.text(pad_left(text, columns), style)
    }

    /// `columns` empty columns.
    pub fn gap(self, columns: usize) -> Self {
        self.text(" ".repeat(columns), Style::new())
    }

    /// Spaces up to column `column`; at least one, so that cells never touch.
    pub fn to(self, column: usize) -> Self {
        let now = self.width();
        self.gap(column.saturating_sub(now).max(1))
    }

    pub fn width(&self) -> usize {
        self.spans.iter().map(|s| width(&s.content)).sum()
    }

    /// What was built, then `right` at the end of `columns` columns; `right` stays whole.
    pub fn ending(self, right: Row, columns: usize) -> Line<'static> {
        let rest = columns.saturating_sub(right.width());
        let mut line = fit(self.line(), rest);
        line.spans.extend(right.spans);
        line
    }

    pub fn append(mut self, other: Row) -> Self {
        self.spans.extend(other.spans);
        self
    }

    pub fn line(self) -> Line<'static> {
        Line::from(self.spans)
    }
}

impl From<Row> for Line<'static> {
    fn from(row: Row) -> Self {
        row.line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_pads_by_display_width() {
        assert_eq!(cut("同步作业列表", 7), "同步作…");
        assert_eq!(cut("同步作业列表", 8), "同步作…");
        assert_eq!(pad("同步", 5), "同步 ");
        assert_eq!(pad_left("同步", 5), " 同步");
        for n in 0..14 {
            assert_eq!(width(&pad("a同b步c作业", n)), n, "at {n}");
        }
    }

    #[test]
    fn wraps_words_and_wide_characters() {
        assert_eq!(wrap("the policy is Precheck and block", 12), ["the policy", "is Precheck", "and block"]);
        assert_eq!(wrap("目标库不为空，请先清空", 10), ["目标库不为", "空，请先清", "空"]);
        // a row never begins with a closing mark
        assert_eq!(wrap("目标库不为空，请先清空", 12), ["目标库不为", "空，请先清空"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        for row in wrap("混合 text with 很长的 words-and-dashes 在一起", 9) {
            assert!(width(&row) <= 9, "{row:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(count(31_204_118), "31,204,118");
        assert_eq!([short(0.0), short(812.0), short(2_140.0), short(31_204_118.0)], ["0", "812", "2.1k", "31M"]);
        assert_eq!([bytes(0), bytes(98_304), bytes(1_572_864)], ["0 B", "96 KB", "1.5 MB"]);
        assert_eq!([millis(3), millis(1_240), millis(130_000)], ["3 ms", "1.2 s", "2m10"]);
        assert_eq!(seconds(2 * 86_400 + 4 * 3600 + 11 * 60), "2d 04:11");
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(clean("a\x1b[31mb\nc\u{202e}d"), "a·[31mb c·d");
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail("abcdef", 3), ("def".into(), 3));
        assert_eq!(tail("同步作业", 5), ("作业".into(), 4));
    }

    #[test]
    fn of_an_address_that_is_cut_the_port_stays() {
        assert_eq!(cut_address("127.0.0.1:7801", 20), "127.0.0.1:7801");
        assert_eq!(cut_address("127.0.0.1:7801", 11), "127.0…:7801");
        assert_eq!(ends("127.0.0.1:7801", "127.0.0.1:7802", 25), "127.0…:7801 → 127.0…:7802");
        assert_eq!(ends("r-bp1abc", "127.0.0.1:7802", 25), "r-bp1abc → 127.0.0.1:7802");
        for columns in 0..40 {
            assert!(width(&ends("127.0.0.1:7801", "a-long-name.of-a-host.example:6379", columns)) <= columns);
        }
    }

    #[test]
    fn an_opening_quote_does_not_end_a_row() {
        assert_eq!(wrap("such as \"there\"", 9), ["such as", "\"there\""]);
        assert_eq!(wrap("choose `ignore` or `merge`", 8), ["choose", "`ignore`", "or", "`merge`"]);
        assert_eq!(wrap("先结束作业（x），再删除", 12), ["先结束作业", "（x），再删", "除"]);
    }
}
