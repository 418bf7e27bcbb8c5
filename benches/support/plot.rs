//! A plot of the table: how ours stands to native, a bar each, with the aim where there is one. SVG, by hand.

use std::fmt::Write;

/// One measurement that native has too.
pub struct Bar {
    pub name: String,
    /// Ours by native's, the middle and the worst and best round of ours.
    pub ratio: f64,
    pub spread: (f64, f64),
    /// What the ratio has to be: at least, or at most where less is better.
    pub aim: Option<f64>,
    pub less_is_better: bool,
}

const ROW: usize = 34;
const LEFT: usize = 300;
const WIDTH: f64 = 480.0;
/// The ratio at the right end.
const MOST: f64 = 2.0;

pub fn svg(title: &str, bars: &[Bar]) -> String {
    let height = 90 + bars.len() * ROW;
    let x = |ratio: f64| LEFT as f64 + ratio.clamp(0.0, MOST) / MOST * WIDTH;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for tick in [0.0, 0.5, 1.0, 1.5, 2.0] {
        let (at, stroke) = (x(tick), if tick == 1.0 { "#333" } else { "#ddd" });
        let bottom = height - 30;
        let _ = writeln!(out, "<line x1=\"{at:.1}\" y1=\"40\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"{stroke}\"/>");
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>", height - 12);
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = 48 + i * ROW;
        let met = bar.aim.is_none_or(|aim| if bar.less_is_better { bar.ratio <= aim } else { bar.ratio >= aim });
        let colour = if met { "#4a90a4" } else { "#c0504d" };
        let note = if bar.less_is_better { ", less is better" } else { "" };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}{note}</text>",
            LEFT - 10,
            y + 15,
            escaped(&bar.name)
        );
        let (from, to) = (x(0.0), x(bar.ratio));
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"20\" fill=\"{colour}\"/>",
            to - from
        );
        let (low, high, middle) = (x(bar.spread.0), x(bar.spread.1), y + 10);
        let _ = writeln!(
            out,
            "<line x1=\"{low:.1}\" y1=\"{middle}\" x2=\"{high:.1}\" y2=\"{middle}\" stroke=\"black\" stroke-width=\"2\"/>"
        );
        if let Some(aim) = bar.aim {
            let at = x(aim);
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"#e69f00\" stroke-width=\"3\"/>",
                y - 3,
                y + 23
            );
        }
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{:.2}</text>", LEFT as f64 + WIDTH + 12.0, y + 15, bar.ratio);
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
